// Package e2e tests both programs against real servers, from outside, as users
// and operators see them: nothing here imports their code. The tests need the
// build tag e2e (make e2e), since they build servers and take minutes; they run
// side by side, and most of their time is waiting for minutes to close.
package e2e
