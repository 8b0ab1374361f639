package node

import (
	"bytes"
	"fmt"
	"strconv"
)

// The readers of the kernel's text work on bytes in place: a tick reads some
// hundred kilobytes, and splitting them into strings would cost more than all
// else.

// line cuts the first line off text.
func line(text *[]byte) []byte {
	t := *text
	if i := bytes.IndexByte(t, '\n'); i >= 0 {
		*text = t[i+1:]
		return t[:i]
	}
	*text = nil
	return t
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// field cuts the first word off a line; it is empty at the end.
func field(l *[]byte) []byte {
	t := *l
	i := 0
	for i < len(t) && blank(t[i]) {
		i++
	}
	j := i
	for j < len(t) && !blank(t[j]) {
		j++
	}
	*l = t[j:]
	return t[i:j]
}

func trim(t []byte) []byte {
	for len(t) > 0 && (blank(t[0]) || t[0] == 0) {
		t = t[1:]
	}
	for len(t) > 0 && (blank(t[len(t)-1]) || t[len(t)-1] == 0) {
		t = t[:len(t)-1]
	}
	return t
}

// uintOf reads a decimal number.
func uintOf(t []byte) (uint64, bool) {
	if len(t) == 0 || len(t) > 20 {
		return 0, false
	}
	var v uint64
	for _, c := range t {
		d := uint64(c - '0')
		if d > 9 || v > (1<<64-1-d)/10 {
			return 0, false
		}
		v = v*10 + d
	}
	return v, true
}

// hexOf reads a hexadecimal number without a prefix.
func hexOf(t []byte) (uint64, bool) {
	if len(t) == 0 || len(t) > 16 {
		return 0, false
	}
	var v uint64
	for _, c := range t {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		v = v<<4 | uint64(c)
	}
	return v, true
}

// wholeOf reads a whole number as sysfs writes it: decimal, with a sign or
// without, or hexadecimal behind 0x.
func wholeOf(t []byte) (float64, bool) {
	if len(t) > 2 && t[0] == '0' && (t[1] == 'x' || t[1] == 'X') {
		v, ok := hexOf(t[2:])
		return float64(v), ok
	}
	if len(t) > 1 && t[0] == '-' {
		v, ok := uintOf(t[1:])
		return -float64(v), ok
	}
	v, ok := uintOf(t)
	return float64(v), ok
}

// floatOf reads any number.
func floatOf(t []byte) (float64, bool) {
	if v, ok := wholeOf(t); ok && !bytes.HasPrefix(t, []byte("0x")) {
		return v, true
	}
	if len(t) > 64 {
		return 0, false
	}
	v, err := strconv.ParseFloat(string(t), 64)
	return v, err == nil
}

// clip shortens what an error quotes.
func clip(t []byte) []byte {
	if len(t) > 80 {
		return t[:80]
	}
	return t
}

// malformed is the error about a line that is not what the kernel writes.
func malformed(l []byte, want string) error { return fmt.Errorf("line %q is not %s", clip(l), want) }
