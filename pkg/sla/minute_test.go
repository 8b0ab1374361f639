package sla

import (
	"math"
	"math/big"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestTimeStampOnTheEdgeBelongsToTheMinuteThatBegins(t *testing.T) {
	for _, c := range []struct {
		ms   int64
		want Minute
	}{
		{0, 0}, {1, 0}, {59_999, 0}, {60_000, 1}, {-1, -1}, {-60_000, -1}, {-60_001, -2},
	} {
		if got := MinuteOfMillis(c.ms); got != c.want {
			t.Errorf("%d ms belong to minute %d, want %d", c.ms, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		ms := rapid.Int64Range(-1<<50, 1<<50).Draw(t, "ms")
		m := MinuteOfMillis(ms)
		if m.Millis() > ms || (m+1).Millis() <= ms {
			t.Fatalf("%d ms belong to minute %d, which is [%d, %d)", ms, m, m.Millis(), (m + 1).Millis())
		}
		if got := MinuteOf(m.Time()); got != m {
			t.Fatalf("minute %d begins in minute %d", m, got)
		}
		day := time.Unix(m.Day()*86400, 0).UTC()
		if y, mo, d := m.Time().Date(); day != time.Date(y, mo, d, 0, 0, 0, 0, time.UTC) {
			t.Fatalf("minute %s is of day %s", m.Time(), day)
		}
	})
}

func TestR03SumsAreExactIn128Bits(t *testing.T) {
	edge := rapid.SampledFrom([]int64{0, 1, -1, math.MaxInt64, math.MinInt64, math.MaxInt64 - 1, math.MinInt64 + 1})
	value := rapid.OneOf(edge, rapid.Int64())
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(value, 0, 40).Draw(t, "values")
		var sum, minus Int128
		want := new(big.Int)
		for _, v := range values {
			sum, minus = sum.AddInt64(v), minus.Sub(NewInt128(v))
			want.Add(want, big.NewInt(v))
			if sum.Big().Cmp(want) != 0 || sum.String() != want.String() || sum.Sign() != want.Sign() {
				t.Fatalf("sum is %s (%s, sign %d), want %s", sum.Big(), sum, sum.Sign(), want)
			}
		}
		if neg := new(big.Int).Neg(want); minus.Big().Cmp(neg) != 0 {
			t.Fatalf("taken away, the values are %s, want %s", minus, neg)
		}
		other := value.Draw(t, "other")
		if got := sum.Cmp(NewInt128(other)); got != want.Cmp(big.NewInt(other)) {
			t.Fatalf("%s compared with %d is %d", sum, other, got)
		}
	})
}

// The micro-bytes of one busy day overflow 64 bits.
func TestR03SumOfADayOfLogBytesDoesNotOverflow(t *testing.T) {
	const minuteOf2GB = 2_000_000_000 * 60 * Micro / 10 // 12 GB in a minute, in micro-bytes
	var s Sum
	for range 1440 {
		s.Add(Counts{GoodLow: minuteOf2GB, GoodHigh: minuteOf2GB, Total: minuteOf2GB})
	}
	if got := Events(s.Total); got != "17280000000000" || s.Total.Sign() <= 0 {
		t.Errorf("1440 minutes of 12 GB are %s bytes, want 17280000000000", got)
	}
	if got := s.Verdict(target(t, "1")); got != Met {
		t.Errorf("all good, but the verdict is %q", got)
	}
}

// anyCounts draws a minute or a revision: anything that fits.
func anyCounts(t *rapid.T, label string) Counts {
	v := rapid.Int64Range(-1<<60, 1<<60)
	return Counts{v.Draw(t, label), v.Draw(t, label), v.Draw(t, label), v.Draw(t, label), v.Draw(t, label), v.Draw(t, label)}
}

func TestR30SumOfMinutesIsTheSameInAnyOrderAndInAnyGroups(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 20).Draw(t, "minutes")
		minutes := make([]Counts, n)
		for i := range minutes {
			minutes[i] = anyCounts(t, "counts")
		}
		var want Sum
		for _, c := range minutes {
			want.Add(c)
		}
		if want.Minutes != int64(n) {
			t.Fatalf("%d minutes are in the sum, want %d", want.Minutes, n)
		}
		order := make([]int, n)
		for i := range order {
			order[i] = i
		}
		var shuffled Sum
		for _, i := range rapid.Permutation(order).Draw(t, "order") {
			shuffled.Add(minutes[i])
		}
		if shuffled != want {
			t.Fatalf("in another order the sum is %+v, want %+v", shuffled, want)
		}
		cut, cut2 := rapid.IntRange(0, n).Draw(t, "cut"), rapid.IntRange(0, n).Draw(t, "cut")
		cut, cut2 = min(cut, cut2), max(cut, cut2)
		part := func(cs []Counts, f Flags) (s Sum) {
			for _, c := range cs {
				s.Add(c)
			}
			s.Flags = f
			return s
		}
		a, b, c := part(minutes[:cut], FlagSampled), part(minutes[cut:cut2], FlagAbsent), part(minutes[cut2:], FlagSampled)
		left := a // (a + b) + c
		left.Merge(b)
		left.Merge(c)
		right := b // a + (b + c)
		right.Merge(c)
		first := a
		first.Merge(right)
		want.Flags = FlagSampled | FlagAbsent
		if left != want || first != want {
			t.Fatalf("in groups the sum is %+v and %+v, want %+v", left, first, want)
		}
	})
}

func TestR29MinuteThatLeavesAWindowLeavesNothingBehind(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var minutes []Counts
		var running Sum
		length := rapid.IntRange(1, 5).Draw(t, "length")
		for i := range rapid.IntRange(1, 20).Draw(t, "minutes") {
			c := anyCounts(t, "counts")
			minutes = append(minutes, c)
			running.Add(c)
			if len(minutes) > length {
				running.Remove(minutes[0])
				minutes = slices.Delete(minutes, 0, 1)
			}
			// A revision of a minute inside: its difference goes into both.
			if i%3 == 0 {
				d := anyCounts(t, "revision")
				running.Revise(d)
				minutes[0] = minutes[0].Add(d)
			}
			var fresh Sum
			for _, c := range minutes {
				fresh.Add(c)
			}
			if running != fresh {
				t.Fatalf("running sum is %+v, added anew it is %+v", running, fresh)
			}
		}
	})
}

func TestRevisionIsTheDifferenceOfTwoDerivations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		booked, derived := anyCounts(t, "booked"), anyCounts(t, "derived")
		revision := derived.Sub(booked)
		if got := booked.Add(revision); got != derived {
			t.Fatalf("booked and revised is %+v, want %+v", got, derived)
		}
		if !derived.Sub(derived).IsZero() || revision.IsZero() != (booked == derived) {
			t.Fatalf("IsZero of %+v is %t", revision, revision.IsZero())
		}
	})
}
