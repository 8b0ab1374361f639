// Package alert decides which burn-rate tiers of which objectives fire, keeps
// that over restarts, and keeps Alertmanager told.
//
// It owns the state of each tier (firing since when, resolved when), its file,
// and the sending. It refuses arithmetic: whether a tier fires is pkg/sla's.
// Windows come in with each Tick; alerts leave for every Alertmanager by API
// v2, again each minute, resolved ones for 15 minutes, since Alertmanager
// forgets over a restart and a resolve may be lost.
//
// Silence is not recovery. A firing alert resolves only when its short window
// was watched, its newest sample is at most five minutes old and the burn is at
// or below the threshold; else it is held, for as long as it takes. An alert of
// an objective that is not evaluated any more (its file is gone, or its target
// leaves the tier no room) is held for five minutes and then resolves. Nothing
// seen never starts an alert.
//
// There is no queue of messages: each peer is sent the alerts as they are at
// that moment, so that a peer that was away gets the truth and nothing grows.
package alert
