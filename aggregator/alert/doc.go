// Package alert decides which burn-rate tiers of which objectives fire, keeps
// that over restarts, and keeps Alertmanager told.
//
// It owns the state of each tier (firing since when, resolved when), its file,
// and the sending. It refuses arithmetic: whether a tier fires is pkg/sla's.
// Windows come in with each Tick; alerts leave for every Alertmanager by API
// v2, again each minute, resolved ones for 15 minutes, since Alertmanager
// forgets over a restart and a resolve may be lost.
//
// There is no queue of messages: each peer is sent the alerts as they are at
// that moment, so that a peer that was away gets the truth and nothing grows.
package alert
