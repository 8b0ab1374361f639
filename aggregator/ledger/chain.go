package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
)

// header is a batch without its entries.
type header struct {
	Position
	count             uint64
	firstDay, lastDay int64
	before            [32]byte
}

func (h header) encode() []byte {
	v := []byte{valueVersion}
	v = binary.AppendUvarint(v, h.Term)
	v = binary.AppendVarint(v, h.At)
	v = binary.AppendUvarint(v, h.count)
	v = binary.AppendVarint(v, h.firstDay)
	v = binary.AppendVarint(v, h.lastDay)
	v = append(v, h.before[:]...)
	return append(v, h.Hash[:]...)
}

func batchKey(seq uint64) []byte { return binary.BigEndian.AppendUint64([]byte("b"), seq) }

func decodeHeader(k, v []byte) (h header, err error) {
	fail := func() (header, error) {
		return header{}, fmt.Errorf("%w: header of batch, key %x", errCorrupt, k)
	}
	if len(k) != 9 || k[0] != 'b' || len(v) == 0 || v[0] != valueVersion {
		return fail()
	}
	h.Seq = binary.BigEndian.Uint64(k[1:])
	r := bytes.NewReader(v[1:])
	var errs [5]error
	h.Term, errs[0] = binary.ReadUvarint(r)
	h.At, errs[1] = binary.ReadVarint(r)
	h.count, errs[2] = binary.ReadUvarint(r)
	h.firstDay, errs[3] = binary.ReadVarint(r)
	h.lastDay, errs[4] = binary.ReadVarint(r)
	if errors.Join(errs[:]...) != nil || r.Len() != 64 {
		return fail()
	}
	copy(h.before[:], v[len(v)-64:])
	copy(h.Hash[:], v[len(v)-32:])
	return h, nil
}

// hashing is the hash of a batch, fed with its keys and values in order.
type hashing struct {
	sum hash.Hash
	buf []byte
}

func newHashing(h header) *hashing {
	s := &hashing{sum: sha256.New()}
	s.begin(h)
	return s
}

func (s *hashing) begin(h header) {
	s.sum.Reset()
	b := append(s.buf[:0], h.before[:]...)
	b = binary.BigEndian.AppendUint64(b, h.Term)
	b = binary.BigEndian.AppendUint64(b, h.Seq)
	b = binary.BigEndian.AppendUint64(b, uint64(h.At))
	b = binary.BigEndian.AppendUint64(b, h.count)
	s.sum.Write(b)
	s.buf = b
}

func (s *hashing) add(k, v []byte) {
	b := binary.BigEndian.AppendUint64(s.buf[:0], uint64(len(k)))
	b = append(b, k...)
	b = binary.BigEndian.AppendUint64(b, uint64(len(v)))
	b = append(b, v...)
	s.sum.Write(b)
	s.buf = b
}

func (s *hashing) done() (h [32]byte) {
	s.sum.Sum(h[:0])
	return h
}
