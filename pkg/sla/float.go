package sla

// Float64 returns a rounded to the nearest float64, for rough comparisons: what
// is printed or decided is computed exactly.
func (a Int128) Float64() float64 {
	const two64 = 1 << 64
	return float64(a.hi)*two64 + float64(a.lo)
}
