package openslo

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"nines/pkg/sla"
)

// The schemas are written from here into schema/ by the test with -update, so
// that no program carries what makes them.

// shape is a JSON schema, its keywords in the order in which they are written.
type shape struct {
	Schema           string      `json:"$schema,omitempty"`
	ID               string      `json:"$id,omitempty"`
	Ref              string      `json:"$ref,omitempty"`
	Title            string      `json:"title,omitempty"`
	Description      string      `json:"description,omitempty"`
	Type             any         `json:"type,omitempty"` // a name or a list of them
	Const            any         `json:"const,omitempty"`
	Enum             []string    `json:"enum,omitempty"`
	Default          any         `json:"default,omitempty"`
	Examples         []any       `json:"examples,omitempty"`
	Pattern          string      `json:"pattern,omitempty"`
	MinLength        int         `json:"minLength,omitempty"`
	MaxLength        int         `json:"maxLength,omitempty"`
	Minimum          json.Number `json:"minimum,omitempty"`
	ExclusiveMinimum json.Number `json:"exclusiveMinimum,omitempty"`
	Maximum          json.Number `json:"maximum,omitempty"`
	Items            *shape      `json:"items,omitempty"`
	MinItems         int         `json:"minItems,omitempty"`
	MaxItems         int         `json:"maxItems,omitempty"`
	UniqueItems      bool        `json:"uniqueItems,omitempty"`
	Properties       fields      `json:"properties,omitempty"`
	Additional       any         `json:"additionalProperties,omitempty"` // false or a shape
	Required         []string    `json:"required,omitempty"`
	Not              *shape      `json:"not,omitempty"`
	OneOf            []shape     `json:"oneOf,omitempty"`
	AnyOf            []shape     `json:"anyOf,omitempty"`
	AllOf            []shape     `json:"allOf,omitempty"`
	If               *shape      `json:"if,omitempty"`
	Then             *shape      `json:"then,omitempty"`
	Else             *shape      `json:"else,omitempty"`
	Defs             fields      `json:"$defs,omitempty"`
}

// field is one property.
type field struct {
	name  string
	of    shape
	needs bool
}

// fields keep their order, which is that of the documentation.
type fields []field

// MarshalJSON writes the fields as an object.
func (fs fields) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range fs {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(f.name)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(f.of); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func may(name string, of shape) field  { return field{name, of, false} }
func must(name string, of shape) field { return field{name, of, true} }

// object takes its fields and no others.
func object(description string, fs ...field) shape {
	s := shape{Description: description, Type: "object", Properties: fs, Additional: false}
	for _, f := range fs {
		if f.needs {
			s.Required = append(s.Required, f.name)
		}
	}
	return s
}

// text is not empty, nor all space.
func text(description string) shape {
	return shape{Description: description, Type: "string", Pattern: `\S`}
}

// brief is a text whose length the checks bound.
func brief(description string) shape {
	s := text(description)
	s.MaxLength = maxText
	return s
}

// shared refers to a part that several schemas hold, by its name in parts.
func shared(name, description string) shape {
	return shape{Ref: "#/$defs/" + name, Description: description}
}

func example(s shape, values ...any) shape {
	s.Examples = values
	return s
}

func patterned(description, pattern string) shape {
	return shape{Description: description, Type: "string", Pattern: pattern}
}

func choice(description string, values ...string) shape {
	return shape{Description: description, Type: "string", Enum: values}
}

func truth(description string) shape { return shape{Description: description, Type: "boolean"} }

func listOf(description string, item shape, least, most int) shape {
	return shape{Description: description, Type: "array", Items: &item, MinItems: least, MaxItems: most}
}

// share is a number above 0 and up to most, 1 or 100.
func share(description, most string) shape {
	return shape{Description: description, Type: "number", ExclusiveMinimum: "0", Maximum: json.Number(most)}
}

func durationOf(description, units string) shape {
	return patterned(description, "^[1-9][0-9]*["+units+"]$")
}

func fixed(value string) *shape { return &shape{Const: value} }

// has holds of an object with all of these keys.
func has(keys ...string) shape { return shape{Required: keys} }

// none holds of an object without any of these keys.
func none(keys ...string) shape {
	var any []shape
	for _, k := range keys {
		any = append(any, has(k))
	}
	return shape{Not: &shape{AnyOf: any}}
}

// where holds of an object whose key has a value; the key must be there.
func where(key, value string) *shape {
	return &shape{Properties: fields{{name: key, of: *fixed(value)}}, Required: []string{key}}
}

const anyUnit = "mhdwMQY"

var (
	description = shape{Description: "What it is about, in whole sentences.", Type: "string", MaxLength: maxText}
	ianaZone    = example(text("The zone whose clocks count, by its name in the IANA database. The host's own zone (Local) is refused: a document means the same everywhere."), "Europe/Berlin", "UTC")
)

// metadataOf is what every document has above its spec.
func metadataOf(ours bool) shape {
	name := shape{Description: "The name that references use. Two documents of one kind and namespace never share it.", Type: "string", MinLength: 1, MaxLength: 255}
	if ours {
		name.MaxLength, name.Pattern = maxName, ninesName.String()
	}
	labels := shape{
		Description: "Words to sort, select and exclude by. Reports and series carry them.", Type: "object",
		Additional: shape{AnyOf: []shape{{Type: "string"}, {Type: "array", Items: &shape{Type: "string"}}}},
	}
	annotations := shape{
		Description: "Settings for programs. Those that begin with nines.internal/ are read here, others are kept for whoever wrote them.", Type: "object",
		Properties: fields{
			may(AnnotationAbsent, choice("With bad, an expected minute without any sample is one bad event.", "bad")),
			may(AnnotationGroupBy, example(text("Labels, with commas between them: each combination of their values is an objective of its own."), "namespace,service")),
			may(AnnotationMaxGroups, patterned("How many groups become objectives; what is beyond is gathered in one.", "^[0-9]+$")),
			may(AnnotationRunbook, text("The runbook that alerts name: a URL, or a page that comes with the program.")),
			may(AnnotationTeam, text("Who is paged.")),
			may(AnnotationComposite, choice("How the objectives of a composite are put together, minute by minute.", sla.Weighted, sla.AllOf, sla.AnyOf)),
			may(AnnotationCompositeTarget, example(text("The target of the composite, as a ratio."), "0.995")),
		},
		Additional: shape{Type: "string"},
	}
	if ours {
		annotations.Properties = nil
	}
	return object("Who the document is.",
		must("name", name),
		may("namespace", shape{Description: "The space in which the name is unique; references look here first.", Type: "string", MaxLength: 253}),
		may("displayName", text("The name that people read.")),
		may("labels", labels),
		may("annotations", annotations),
	)
}

// document is a whole document of one kind.
func schemaOf(version, kind, about string, spec shape) shape {
	metadata := "metadata"
	if version == NinesVersion {
		metadata = "ninesMetadata"
	}
	s := object(about,
		must("apiVersion", shape{Description: "The format of the document.", Const: version}),
		must("kind", shape{Description: "What the document describes.", Const: kind}),
		must("metadata", shared(metadata, "Who the document is.")),
		must("spec", spec),
	)
	s.Title = kind
	return s
}

// parts are what several schemas, or several places of one, hold.
func parts() map[string]shape {
	return map[string]shape{
		"metadata":      metadataOf(false),
		"ninesMetadata": metadataOf(true),
		"metric":        metricOf(),
		"indicator":     indicatorOf(),
		"condition":     conditionOf(),
		"target":        targetOf(),
		"policy":        policyOf(),
	}
}

// inlineOf is a document that stands inside another one.
func inlineOf(about, kind, ref, refAbout, part string) shape {
	s := object(about,
		may(ref, text(refAbout)),
		may("apiVersion", shape{Description: "The format, where the definition stands here.", Const: APIVersion}),
		may("kind", shape{Description: "What the definition is, where it stands here.", Const: kind}),
		may("metadata", shared("metadata", "Who it is.")),
		may("spec", shared(part, "The definition.")),
	)
	s.OneOf = []shape{has(ref), has("kind", "spec")}
	return s
}

func metricOf() shape {
	return object("A query.", must("metricSource", object("Where the figures come from.",
		may("metricSourceRef", text("The name of a DataSource.")),
		may("type", example(text("The system that is asked. Here it is Prometheus."), "Prometheus")),
		must("spec", shape{
			Description: "What to ask. Other systems than Prometheus have fields of their own.", Type: "object",
			Properties: fields{may("query", example(text("PromQL. Counters as sum(rate(…)) are counted exactly; other expressions are evaluated once a minute."), `sum(rate(http_requests_total{job="shop"}[5m]))`))},
		}),
	)))
}

func indicatorOf() shape {
	ratio := object("Good (or bad) events among all of them, or a ratio that was computed elsewhere.",
		may("counter", truth("Whether the queries name counters, which only grow until they are reset.")),
		may("good", shared("metric", "Events that are as they should be.")),
		may("bad", shared("metric", "Events that are not as they should be.")),
		may("total", shared("metric", "All events.")),
		may("rawType", choice("Which share the raw ratio is: success of good ones, failure of bad ones.", "success", "failure")),
		may("raw", shared("metric", "A ratio from 0 to 1 that was computed elsewhere.")),
	)
	events := none("raw", "rawType")
	ratio.OneOf = []shape{
		{Required: []string{"good", "total"}, AllOf: []shape{none("bad"), events}},
		{Required: []string{"bad", "total"}, AllOf: []shape{none("good"), events}},
		{Required: []string{"raw", "rawType"}, AllOf: []shape{none("good", "bad", "total")}},
	}
	s := object("How the service is measured: by a ratio of events, or by a value that is compared with a threshold.",
		may("description", description),
		may("thresholdMetric", shared("metric", "A value; each objective says by op and value which is good.")),
		may("ratioMetric", ratio),
	)
	s.OneOf = []shape{has("thresholdMetric"), has("ratioMetric")}
	return s
}

func conditionOf() shape {
	kind := choice("What is compared: the burn rate, which is 1 where the budget lasts exactly for the period.", "burnrate")
	kind.Default = "burnrate"
	after := durationOf("How long the condition must hold before the alert fires.", anyUnit)
	after.Pattern, after.Default = "^[0-9]+["+anyUnit+"]$", "0m"
	return object("When an alert of an SLO fires.",
		may("description", description),
		must("severity", example(text("How urgent it is, in the words of whoever routes alerts."), "page", "ticket")),
		must("condition", object("The comparison.",
			may("kind", kind),
			may("op", choice("How the burn rate is compared with the threshold: above (gt), above or equal (gte), below (lt), below or equal (lte).", "lte", "gte", "lt", "gt")),
			must("threshold", shape{Description: "The burn rate to compare with. It never exceeds 1 ÷ (1 − target): a threshold at or above that never fires.", Type: "number"}),
			must("lookbackWindow", durationOf("The time over which the burn rate is taken.", anyUnit)),
			may("alertAfter", after),
		)),
	)
}

func targetOf() shape {
	return object("Where alerts are sent to.",
		may("description", description),
		must("target", example(text("The way to those who are told, as Alertmanager's receivers name it."), "email", "slack")),
	)
}

func policyOf() shape {
	return object("Which condition alerts, of which changes, and whom.",
		may("description", description),
		may("alertWhenNoData", truth("Alert when nothing is measured.")),
		may("alertWhenResolved", truth("Tell when the condition has ended.")),
		may("alertWhenBreaching", truth("Alert when the condition holds.")),
		must("conditions", listOf("The one condition: OpenSLO has a list for later versions.", inlineOf("A condition, by its name or in place.", "AlertCondition", "conditionRef", "The name of an AlertCondition.", "condition"), 1, 1)),
		must("notificationTargets", listOf("Who is told.", inlineOf("A target, by its name or in place.", "AlertNotificationTarget", "targetRef", "The name of an AlertNotificationTarget.", "target"), 1, 0)),
	)
}

func sloOf() shape {
	indicator := object("The indicator in place.", may("metadata", shared("metadata", "Who it is.")), must("spec", shared("indicator", "What is measured.")))
	op := choice("How the measured value is compared with value to be good: lte at most, gte at least, lt below, gt above. Of a thresholdMetric alone.", "lte", "gte", "lt", "gt")
	objective := object("One target. Each makes a line in the ledger.",
		may("displayName", text("Its name in reports and alerts; without one it is called by its place in the list, from 0.")),
		may("op", op),
		may("value", shape{Description: "The threshold of a thresholdMetric, in the unit of its query.", Type: "number"}),
		may("target", share("The ratio to reach, read as decimal text. 1 leaves no budget.", "1")),
		may("targetPercent", share("The same as a percentage.", "100")),
		may("timeSliceTarget", shape{Description: "The ratio from which on a time slice is good.", Type: "number", Minimum: "0", Maximum: "1"}),
		may("timeSliceWindow", shape{
			Description: "How long a time slice is: a duration, or a number of minutes.",
			AnyOf:       []shape{{Type: "number", ExclusiveMinimum: "0"}, {Type: "string", Pattern: "^[1-9][0-9]*[" + anyUnit + "]?$"}},
		}),
		may("indicator", indicator),
		may("indicatorRef", text("The name of an SLI, where the SLO is put together of several.")),
		may("compositeWeight", shape{Description: "How much this part of a composite SLO weighs against the others.", Type: "number", ExclusiveMinimum: "0"}),
	)
	objective.OneOf = []shape{has("target"), has("targetPercent")}
	objective.Not = &shape{Required: []string{"indicator", "indicatorRef"}}
	rolling := truth("Whether the window ends now and moves on; otherwise it is one of a calendar.")
	rolling.Default = false
	window := object("The period of the budget.",
		must("duration", durationOf("Its length. Months, quarters and years are of a calendar.", anyUnit)),
		may("isRolling", rolling),
		may("calendar", object("The calendar whose days, weeks, months, quarters or years are the periods.",
			may("startTime", example(text("When a period begins, as the zone's clocks show it."), "2026-01-01 00:00:00")),
			must("timeZone", ianaZone),
		)),
	)
	window.If = &shape{Properties: fields{{name: "isRolling", of: shape{Const: true}}}, Required: []string{"isRolling"}}
	not := none("calendar")
	window.Then = &not
	window.Else = &shape{Required: []string{"calendar"}}

	s := object("An indicator, the targets for it, and the period over which they hold.",
		may("description", description),
		must("service", text("The service that it is about; it may be the name of a Service.")),
		may("indicator", indicator),
		may("indicatorRef", text("The name of an SLI of the same namespace.")),
		may("timeWindow", listOf("The one window: OpenSLO has a list for later versions.", window, 1, 1)),
		must("budgetingMethod", choice("What the budget counts. Occurrences: bad events among all. Timeslices: bad slices of time among all. RatioTimeslices: the mean of the ratios of all slices.", "Occurrences", "Timeslices", "RatioTimeslices")),
		must("objectives", listOf("The targets, or the parts of a composite SLO.", objective, 1, 0)),
		may("alertPolicies", listOf("When someone is told.", inlineOf("A policy, by its name or in place.", "AlertPolicy", "alertPolicyRef", "The name of an AlertPolicy.", "policy"), 0, 0)),
	)
	s.Not = &shape{Required: []string{"indicator", "indicatorRef"}}
	part := shape{AnyOf: []shape{has("indicator"), has("indicatorRef")}}
	s.AnyOf = []shape{has("indicator"), has("indicatorRef"), {Properties: fields{{name: "objectives", of: shape{Items: &part}}}}}
	each := func(keys ...string) *shape {
		item := has(keys...)
		return &shape{Properties: fields{{name: "objectives", of: shape{Items: &item}}}}
	}
	s.AllOf = []shape{
		{If: where("budgetingMethod", "Timeslices"), Then: each("timeSliceTarget", "timeSliceWindow")},
		{If: where("budgetingMethod", "RatioTimeslices"), Then: each("timeSliceWindow")},
	}
	return s
}

func agreementOf() shape {
	promise := object("One objective that is promised.",
		must("slo", text("The name of the SLO.")),
		may("namespace", text("The namespace of the SLO; without it that of the agreement.")),
		may("objective", text("The displayName of the objective, or its place in the list, from 0. It may be left out where the SLO has one.")),
		may("target", share("The ratio that is promised. Without it, it is that of the objective, which should be the higher one: the team is to know before the customer.", "1")),
		may("targetPercent", share("The same as a percentage.", "100")),
	)
	promise.Not = &shape{Required: []string{"target", "targetPercent"}}
	tier := object("A range of figures and the credit for them.",
		must("below", share("Figures below this percentage are in the tier. The edge itself is not: exactly 99.95 is not below 99.95.", "100")),
		may("atLeast", shape{Description: "Figures below this percentage are in the next tier. Without it the tier ends where the next one begins, and the last one at 0.", Type: "number", Minimum: "0", Maximum: "100"}),
		must("credit", share("What is due, as a percentage of the fee.", "100")),
	)
	amount := shape{Description: "The amount, as a decimal number of up to 4 decimals, in the currency of the fee.", Type: "number", Minimum: "0"}
	limitOf := func(about string) shape {
		s := object(about, may("percent", share("As a percentage of the fee.", "100")), may("amount", amount))
		s.OneOf = []shape{has("percent"), has("amount")}
		return s
	}
	target := share("For downtime: a slice whose ratio is below this one is down. A slice with no failure at all is up with any target.", "1")
	s := object("What one party promises another for each period of a calendar, how it is measured, and what is due where it is missed.",
		may("description", description),
		must("direction", choice("outbound: we promise it to a customer. inbound: a provider promises it to us.", Outbound, Inbound)),
		must("parties", object("Who promises what to whom.",
			must("provider", brief("Who gives the promise.")),
			must("customer", brief("Who gets the promise.")),
		)),
		must("objectives", listOf("What is promised. Each objective has its own figure; the highest credit among them is due, not their sum.", promise, 1, maxPromises)),
		must("period", object("The periods, of which each is measured and settled alone.",
			must("calendar", choice("The unit of the calendar. A month is as long as it is: 28 to 31 days, some of 23 or 25 hours.", sla.Month, sla.Quarter, sla.Year)),
			must("timeZone", ianaZone),
		)),
		must("method", choice("How the figure of a period comes about. events: good among all events, so that busy hours weigh more. downtime: minutes that were not down among all minutes. slices: the mean of the ratios of all time slices that have events, each of which weighs the same.", MethodEvents, MethodDowntime, MethodSlices)),
		may("timeSliceWindow", durationOf("The length of a time slice of downtime (without it 1m) or slices: whole minutes that divide a day.", "mhd")),
		may("timeSliceTarget", target),
		must("missingData", choice("What time counts as of which nothing was measured. ignored: it is in no figure. good: as time without an error. bad: as downtime, or as time in which all failed. With events a minute of it weighs as much as the mean of those that were measured.", MissingIgnored, MissingGood, MissingBad)),
		may("minimumCoverage", share("The percentage of a period that must have been measured. Below it the period is inconclusive: neither met nor missed.", "100")),
		may("minimumOutage", durationOf("For downtime: what is down for less time in one piece does not count. A whole number of time slices.", "mhd")),
		may("creditTiers", listOf("Which credit is due for which figure, the best figure first. No figure is rounded before it is looked up.", tier, 0, maxCreditTiers)),
		may("fee", object("What the customer pays for a period.",
			must("amount", shape{Description: "The amount, as a decimal number of up to 4 decimals.", Type: "number", Minimum: "0"}),
			must("currency", example(patterned("The currency, as ISO 4217 has it.", "^[A-Z]{3}$"), "EUR", "USD")),
		)),
		may("cap", limitOf("The most that is due for a period, whatever the tier says.")),
		may("minimum", limitOf("A credit below this one is not paid.")),
		may("claimDeadline", durationOf("How long after the end of a period a credit can be claimed, from 1 day to 3 years.", "hdw")),
		may("dependsOn", listOf("The inbound agreements that this one is built on and needs all of, as name or namespace/name.", text("The name of an inbound agreement."), 0, maxDependsOn)),
	)
	not := none
	s.AllOf = []shape{
		{If: where("method", MethodEvents), Then: ptr(not("timeSliceWindow", "timeSliceTarget", "minimumOutage"))},
		{If: where("method", MethodDowntime), Then: ptr(has("timeSliceTarget"))},
		{If: where("method", MethodSlices), Then: ptr(shape{Required: []string{"timeSliceWindow"}, AllOf: []shape{not("timeSliceTarget", "minimumOutage")}})},
		{If: where("direction", Inbound), Then: ptr(not("dependsOn"))},
	}
	return s
}

func ptr(s shape) *shape { return &s }

func exclusionOf() shape {
	when := "As RFC 3339 has it, or as the clocks of timeZone show it, in whole minutes."
	rule := example(text("When it occurs, as RFC 5545 writes a RRULE, by days, weeks, months or years. It begins at from, and UNTIL or COUNT end it."), "FREQ=MONTHLY;BYDAY=1SU")
	rule.MaxLength = maxRule
	s := object("Time that agreements leave out, once (from, to) or by a rule (from, rrule, duration).",
		must("scope", listOf("Which objectives it is about: all of these must match.", example(patterned(`A matcher label="value", also with !=, =~ and !~. A label is one of the SLO's, or service, namespace, slo or objective.`, matcher.String()), `service="checkout"`, `tier=~"gold|silver"`), 1, maxMatchers)),
		must("from", example(text("When it begins; of a rule, when it can first occur and at which time of day it does. "+when), "2026-03-01T22:00:00Z", "2026-03-01 22:00")),
		may("to", example(text("When it ends. "+when), "2026-03-02T02:00:00Z")),
		may("timeZone", ianaZone),
		may("rrule", rule),
		may("duration", durationOf("How long each occurrence of the rule lasts, up to 31 days.", "mhdw")),
		must("category", choice("Why it may be left out. planned-maintenance: announced work of the provider. emergency-maintenance: work that could not wait for an announcement. customer: the customer caused it or asked for it. third-party: a supplier that the agreement does not answer for. force-majeure: what nobody could prevent. suspension: the service was suspended as the agreement allows.", exclusionCategories...)),
		must("reason", brief("Why this time is left out, for whoever reads the report.")),
		must("requester", brief("Who asks for it.")),
		must("approver", brief("Who has approved it: another one than the requester.")),
	)
	s.If = ptr(has("rrule"))
	s.Then = &shape{Required: []string{"duration", "timeZone"}, AllOf: []shape{none("to")}}
	s.Else = &shape{Required: []string{"to"}, AllOf: []shape{none("duration")}}
	return s
}

func kpiOf() shape {
	roles := listOf("Whose dashboards it is on.", choice("executive: who answers for the promises. oncall: who is paged. operator: who runs the platform. application: the team of one namespace. planner: capacity and cost. auditor: security and compliance.", KPIRoles...), 1, len(KPIRoles))
	roles.UniqueItems = true
	return object("A figure with thresholds and without a budget.",
		must("key", choice("Which of the seven keys of running Kubernetes it belongs to. operations: availability, upgrades, patches, recovery. monitoring: metrics and logs. registry: images and packages. cicd: delivery of changes. provisioning: nodes, load balancing, names, etcd. security: access, certificates, admission. governance: who did what, on record.", KPIKeys...)),
		must("title", brief("The figure in a few words.")),
		must("question", brief("The question that the figure answers.")),
		must("expression", example(text("PromQL with one value, or one of each series."), `time() - max(kube_cronjob_status_last_successful_time{cronjob="backup"})`)),
		must("unit", choice("The unit of the value. ratio is from 0 to 1, percent from 0 to 100.", KPIUnits...)),
		must("direction", choice("Which values are the better ones: thresholds are on the other side.", HigherIsBetter, LowerIsBetter)),
		may("thresholds", listOf("Values beyond which something is to be done, at most one of each severity.", object("A value and why it is the one.",
			must("value", shape{Description: "The value, in the unit of the KPI, of up to 9 decimals.", Type: "number"}),
			must("severity", choice("info is shown, a ticket waits for working hours, a page does not wait. A graver one is further from good.", KPISeverities...)),
			must("reason", brief("Why this value and not another, for whoever it wakes.")),
		), 0, len(KPISeverities))),
		must("roles", roles),
		may("applicability", object("Where the figure can be told.",
			may("series", listOf("The series that must be received; without the list those of the expression. Where they are missing the figure is misconfigured.", patterned("The name of a series, without labels.", seriesName.String()), 0, maxSeries)),
			may("notExposedBy", listOf("Platforms that hide the series: there the figure is not exposed, and no one is alerted.", example(patterned("The name of a platform, in lower case.", platformName.String()), "eks", "gke"), 0, maxSeries)),
		)),
		may("runbook", brief("What to do: a URL, or a page that comes with the program.")),
	)
}

// shapes returns the schema of each kind.
func shapes() map[string]shape {
	return map[string]shape{
		"SLO":     schemaOf(APIVersion, "SLO", "A service level objective.", sloOf()),
		"SLI":     schemaOf(APIVersion, "SLI", "A service level indicator, which SLOs refer to.", shared("indicator", "The definition.")),
		"Service": schemaOf(APIVersion, "Service", "A service, which gathers SLOs.", object("The service.", may("description", description))),
		"DataSource": schemaOf(APIVersion, "DataSource", "A system that has the figures.", object("How it is reached.",
			may("description", description),
			must("type", example(text("Which system it is."), "Prometheus")),
			may("connectionDetails", shape{Description: "What the system needs to be reached. Never write a secret in here.", Type: "object"}),
		)),
		"AlertPolicy":             schemaOf(APIVersion, "AlertPolicy", "A policy of alerts, which SLOs refer to.", shared("policy", "The definition.")),
		"AlertCondition":          schemaOf(APIVersion, "AlertCondition", "A condition of alerts, which policies refer to.", shared("condition", "The definition.")),
		"AlertNotificationTarget": schemaOf(APIVersion, "AlertNotificationTarget", "Someone to tell, whom policies refer to.", shared("target", "The definition.")),
		"Agreement":               schemaOf(NinesVersion, "Agreement", "A service level agreement.", agreementOf()),
		"Exclusion":               schemaOf(NinesVersion, "Exclusion", "Time that agreements leave out.", exclusionOf()),
		"KPI":                     schemaOf(NinesVersion, "KPI", "A key performance indicator.", kpiOf()),
	}
}

func (s shape) encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(s)
	return b.Bytes(), err
}

// gather adds the parts that a schema refers to, and those that they refer to.
func (s *shape) gather() error {
	all := parts()
	for {
		data, err := s.encode()
		if err != nil {
			return err
		}
		added := false
		for _, name := range slices.Sorted(maps.Keys(all)) {
			there := slices.ContainsFunc(s.Defs, func(f field) bool { return f.name == name })
			if !there && bytes.Contains(data, []byte(`"#/$defs/`+name+`"`)) {
				s.Defs, added = append(s.Defs, field{name: name, of: all[name]}), true
			}
		}
		if !added {
			return nil
		}
	}
}

// schemaFiles returns the content of each schema by the name of its file.
func schemaFiles() (map[string][]byte, error) {
	const draft = "https://json-schema.org/draft/2020-12/schema"
	all := shapes()
	any := shape{
		Schema: draft, ID: "urn:nines:schema:any", Title: "any kind", Description: "A document of OpenSLO v1, or of " + NinesVersion + ".", Type: "object",
		Properties: fields{
			must("apiVersion", choice("The format of the document.", APIVersion, NinesVersion)),
			must("kind", choice("What the document describes.", SchemaKinds()...)),
		},
		Required: []string{"apiVersion", "kind"},
	}
	out := map[string][]byte{}
	write := func(name string, s shape) error {
		if err := s.gather(); err != nil {
			return err
		}
		data, err := s.encode()
		out[strings.ToLower(name)+".json"] = data
		return err
	}
	for _, kind := range slices.Sorted(slices.Values(SchemaKinds())) {
		s := all[kind]
		any.AllOf = append(any.AllOf, shape{If: where("kind", kind), Then: &shape{Ref: "#/$defs/" + kind}})
		any.Defs = append(any.Defs, field{name: kind, of: s})
		s.Schema, s.ID = draft, "urn:nines:schema:"+kind
		if err := write(kind, s); err != nil {
			return nil, err
		}
	}
	return out, write("any", any)
}
