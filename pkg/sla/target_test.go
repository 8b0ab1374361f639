package sla

import (
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// sloth #517: 1 − 0.999 was shown as 0.00099999999999989.
func TestPain04_NoFloatNoiseInTargets(t *testing.T) {
	for _, c := range []struct {
		text                    string
		percent                 bool
		ratio, percentage, left string
	}{
		{"0.999", false, "0.999", "99.9", "0.001"},
		{"0.9990", false, "0.999", "99.9", "0.001"},
		{" 0.999 ", false, "0.999", "99.9", "0.001"},
		{".5", false, "0.5", "50", "0.5"},
		{"0.1", false, "0.1", "10", "0.9"}, // 1 − 0.9 is 0.09999999999999998 in floats
		{"0.99999", false, "0.99999", "99.999", "0.00001"},
		{"0.999999999999", false, "0.999999999999", "99.9999999999", "0.000000000001"},
		{"0.000000000001", false, "0.000000000001", "0.0000000001", "0.999999999999"},
		{"1", false, "1", "100", "0"},
		{"1.0", false, "1", "100", "0"},
		{"0001", false, "1", "100", "0"},
		{"99.9", true, "0.999", "99.9", "0.001"},
		{"99.95", true, "0.9995", "99.95", "0.0005"},
		{"99.99999999990000", true, "0.999999999999", "99.9999999999", "0.000000000001"},
		{"100", true, "1", "100", "0"},
		{"5", true, "0.05", "5", "0.95"},
	} {
		parse := ParseTarget
		if c.percent {
			parse = ParseTargetPercent
		}
		got, err := parse(c.text)
		if err != nil {
			t.Errorf("%q (percent %t): %v", c.text, c.percent, err)
			continue
		}
		if got.String() != c.ratio || got.Percent() != c.percentage || got.Budget() != c.left {
			t.Errorf("%q (percent %t) is ratio %s, %s %%, budget %s; want %s, %s %%, %s",
				c.text, c.percent, got, got.Percent(), got.Budget(), c.ratio, c.percentage, c.left)
		}
		if got.IsAll() != (c.ratio == "1") || got.IsZero() {
			t.Errorf("%q: IsAll is %t, IsZero is %t", c.text, got.IsAll(), got.IsZero())
		}
	}
}

func TestWrongTargetIsRefusedWithTheRemedy(t *testing.T) {
	for _, c := range []struct {
		text    string
		percent bool
		remedy  string
	}{
		{"", false, "such as 0.999"},
		{".", false, "such as 0.999"},
		{"NaN", false, "such as 0.999"},
		{".nan", false, "such as 0.999"},
		{"Inf", false, "such as 0.999"},
		{"1/100 %", false, "such as 0.999"},
		{"99.9 %", true, "such as 0.999"},
		{"99,9", true, "targetPercent: 99.9"},
		{"-0.5", false, "such as 0.999"},
		{"+0.5", false, "such as 0.999"},
		{"1e-1", false, "such as 0.999"},
		{"0x1", false, "such as 0.999"},
		{"0.9.9", false, "such as 0.999"},
		{"٠.٩", false, "such as 0.999"},
		{"0", false, "promises nothing"},
		{"0.000", false, "promises nothing"},
		{"0", true, "promises nothing"},
		{"1.1", false, "write 0.999"},
		{"99.9", false, "targetPercent: 99.9"},
		{"1.000000000001", false, "write 0.999"},
		{"100.1", true, "targetPercent: 99.9"},
		{"100000000000000000000000", true, "targetPercent: 99.9"},
		{"0.9999999999999", false, "leave the last ones out"},
		{"99.99999999999", true, "leave the last ones out"},
	} {
		parse := ParseTarget
		if c.percent {
			parse = ParseTargetPercent
		}
		got, err := parse(c.text)
		if err == nil {
			t.Errorf("%q (percent %t) was read as %s", c.text, c.percent, got)
			continue
		}
		if !strings.Contains(err.Error(), c.remedy) || !strings.Contains(err.Error(), `"`+c.text+`"`) {
			t.Errorf("%q (percent %t): the message names neither the value nor the remedy %q: %v", c.text, c.percent, c.remedy, err)
		}
		if !got.IsZero() {
			t.Errorf("%q (percent %t): a refused target is %s, want none", c.text, c.percent, got)
		}
	}
}

func TestTargetTextAndBudgetAreExactForEveryTarget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Target{rapid.Int64Range(1, targetScale).Draw(t, "units")}
		got, err := ParseTarget(want.String())
		if err != nil || got != want {
			t.Fatalf("%s was read back as %s, %v", want, got, err)
		}
		got, err = ParseTargetPercent(want.Percent())
		if err != nil || got != want {
			t.Fatalf("%s %% was read back as %s, %v", want.Percent(), got, err)
		}
		if sum := new(big.Rat).Add(want.Rat(), want.BudgetRat()); sum.Cmp(big.NewRat(1, 1)) != 0 {
			t.Fatalf("target %s and its budget %s are %s together, want 1", want, want.Budget(), sum)
		}
		text, ok := new(big.Rat).SetString(want.Budget())
		if !ok || text.Cmp(want.BudgetRat()) != 0 {
			t.Fatalf("budget of %s is printed as %s, want %s", want, want.Budget(), want.BudgetRat())
		}
	})
}

func TestTargetIsANumberInJSONAndComesBack(t *testing.T) {
	for _, text := range []string{"0.999", "1", "0.000000000001", "0"} {
		var want Target
		if text != "0" { // an objective whose target was never set
			var err error
			if want, err = ParseTarget(text); err != nil {
				t.Fatal(err)
			}
		}
		data, err := json.Marshal(want)
		if err != nil || string(data) != text {
			t.Errorf("target %s is %s in JSON, %v", text, data, err)
		}
		var got Target
		if err := json.Unmarshal(data, &got); err != nil || got != want {
			t.Errorf("%s came back as %s, %v", data, got, err)
		}
	}
	for _, text := range []string{`2`, `-1`, `1e-3`, `true`, `{}`, `"many"`, `0.9999999999999`} {
		var got Target
		if err := json.Unmarshal([]byte(text), &got); err == nil {
			t.Errorf("JSON %s was read as target %s", text, got)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"0.999", "99.9", "1", "", ".", "1e9", "0.0000000000001", "\xff", "１"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseTarget(s)
		if err != nil {
			return
		}
		want, ok := new(big.Rat).SetString(strings.TrimSpace(s))
		if !ok || want.Cmp(got.Rat()) != 0 {
			t.Fatalf("%q was read as %s", s, got)
		}
		if got.units <= 0 || got.units > targetScale {
			t.Fatalf("%q was read as %s, out of range", s, got)
		}
	})
}
