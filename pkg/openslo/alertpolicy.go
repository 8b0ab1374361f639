package openslo

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"nines/pkg/sla"
)

// maxLookback is the longest window of an alert: minutes are in memory that
// long.
const maxLookback = 3 * 24 * time.Hour

// maxPolicies bounds the alert policies of one SLO.
const maxPolicies = 16

// alertPolicies reads an SLO's own alerts.
func (r *resolver) alertPolicies() []sla.Policy {
	list := r.o.spec.Spec.AlertPolicies
	if len(list) > maxPolicies {
		r.fail(r.spec, "alert-policy", "alertPolicies", "an SLO has at most %d alert policies, this has %d: take some out", maxPolicies, len(list))
		return nil
	}
	var out []sla.Policy
	for i := range list {
		h, at := &list[i], r.spec.in("alertPolicies", strconv.Itoa(i))
		name, spec, in, ok := refer(r, r.Set.policies, h.AlertPolicyRef, "alertPolicyRef", "AlertPolicy", h.Kind, h.Metadata, h.Spec, at)
		if !ok {
			continue
		}
		if p, ok := r.alertPolicy(name, spec, in); ok {
			if slices.ContainsFunc(out, func(o sla.Policy) bool { return o.Name == p.Name }) {
				r.fail(at, "duplicate-name", "", "a second alert policy is named %q: rename one", p.Name)
				continue
			}
			out = append(out, p)
		}
	}
	return out
}

// refer returns what stands inline, or the document that is named.
func refer[S any](r *resolver, known kept[S], ref, refKey, kind, givenKind string, meta metadata, given *S, at place) (name string, spec *S, in place, ok bool) {
	switch {
	case ref != "" && given != nil:
		r.fail(at, "alert-policy", refKey, "give %s or an inline %s, not both", refKey, kind)
	case ref != "":
		namespace := r.o.spec.Metadata.Namespace
		found := known[namespace+"/"+ref]
		if found == nil {
			r.fail(at, "unknown-reference", refKey, "there is no %s named %q in namespace %q: add its document, or correct the name", kind, ref, namespace)
			return
		}
		found.used = true
		return found.meta.Name, &found.spec, place{found.doc, []string{"spec"}}, true
	case given == nil:
		r.fail(at, "alert-policy", "", "want %s, or an inline %s with kind, metadata and spec", refKey, kind)
	case givenKind != "" && givenKind != kind:
		r.fail(at, "alert-policy", "kind", "kind is %q, want %s", givenKind, kind)
	case meta.Name == "":
		r.fail(at, "name", "metadata", "metadata.name of an inline %s is missing", kind)
	default:
		return meta.Name, given, at.in("spec"), true
	}
	return
}

func (r *resolver) alertPolicy(name string, spec *policySpec, at place) (p sla.Policy, ok bool) {
	before := r.errors()
	p.Name = name
	if name == sla.UnseenAlarm {
		r.fail(at, "alert-policy", "", "an alert policy named %q would be taken for the alert that an objective is not seen: name it otherwise", name)
	}
	is := func(b *bool, without bool) bool {
		if b == nil {
			return without
		}
		return *b
	}
	// Where it is not said, a breach is told, and so is that nothing is seen: no
	// data looks like no errors (pyrra #448).
	p.Quiet, p.IgnoreNoData = !is(spec.AlertWhenBreaching, true), !is(spec.AlertWhenNoData, true)
	if p.Quiet && p.IgnoreNoData {
		r.fail(at, "alert-policy", "alertWhenBreaching", "alert policy %s tells neither of a breach nor of missing data: it never fires; take it out", name)
	}
	if !is(spec.AlertWhenResolved, true) {
		r.warn(at, "alert-policy", "alertWhenResolved", "every end of an alert goes to Alertmanager, whose receiver says with send_resolved whether people hear of it: set send_resolved: false there")
	}
	if len(spec.Conditions) != 1 {
		r.fail(at, "alert-policy", "conditions", "an alert policy has exactly one condition, this has %d: write a policy for each", len(spec.Conditions))
		return p, false
	}
	h, in := &spec.Conditions[0], at.in("conditions", "0")
	_, c, in, found := refer(r, r.conditions, h.ConditionRef, "conditionRef", "AlertCondition", h.Kind, h.Metadata, h.Spec, in)
	if found {
		r.condition(&p, c, in)
	}
	for i := range spec.NotificationTargets {
		h, in := &spec.NotificationTargets[i], at.in("notificationTargets", strconv.Itoa(i))
		if target, _, _, found := refer(r, r.targets, h.TargetRef, "targetRef", "AlertNotificationTarget", h.Kind, h.Metadata, h.Spec, in); found {
			p.Targets = append(p.Targets, target)
		}
	}
	return p, r.errors() == before
}

func (r *resolver) condition(p *sla.Policy, c *conditionSpec, at place) {
	p.Severity = c.Severity
	if c.Severity == "" {
		r.fail(at, "alert-policy", "severity", "an alert condition needs a severity, such as page or ticket")
	}
	in := at.in("condition")
	b := &c.Condition
	if b.Kind != "" && !strings.EqualFold(b.Kind, "burnrate") {
		r.fail(in, "alert-policy", "kind", "conditions of kind %q are not known: use burnrate", b.Kind)
	}
	switch b.Op {
	case "", "gt":
	case "gte":
		p.AtLeast = true
	default:
		r.fail(in, "alert-policy", "op", "op is %q: a burn rate alerts where it is too high, with gt (the default) or gte", b.Op)
	}
	p.Threshold = string(b.Threshold)
	if _, err := p.Burn(); err != nil {
		r.fail(in, "alert-policy", "threshold", "threshold %q: want the burn rate as a number above 0, such as 14.4", b.Threshold)
	}
	var err error
	if p.Lookback, err = lookback(b.LookbackWindow); err != nil {
		r.fail(in, "alert-policy", "lookbackWindow", "lookbackWindow: %v", err)
	}
	if b.AlertAfter != "" {
		if p.After, err = shorthand(string(b.AlertAfter)); err == nil && p.After > maxLookback {
			err = fmt.Errorf("%s is longer than 3 days", b.AlertAfter)
		}
		if err != nil {
			r.fail(in, "alert-policy", "alertAfter", "alertAfter: %v", err)
		}
	}
}

func lookback(text duration) (time.Duration, error) {
	d, err := shorthand(string(text))
	if err == nil && (d < time.Minute || d > maxLookback) {
		err = fmt.Errorf("%s is out of range: 1m to 3d", text)
	}
	return d, err
}
