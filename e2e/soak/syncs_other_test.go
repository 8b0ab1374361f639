//go:build !linux

package soak

import "errors"

func handOverSyncs() error { return errors.ErrUnsupported }
