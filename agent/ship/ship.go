package ship

import "context"

// Record is one line of a log, ready to be stored.
type Record struct {
	// ID names the record for ever: the same line has the same ID whenever it
	// is sent. At most 512 bytes, which is Elasticsearch's bound for an _id.
	ID string
	// Stream is the data stream that it belongs to, such as
	// logs-nines.files-default.
	Stream string
	// Doc is a JSON object on one line with @timestamp in it.
	Doc []byte
	// Bytes is how many bytes of the log the record stands for, its framing and
	// line end included. A dead letter keeps it.
	Bytes int64
	// Uncertain says that the record may have been sent before by a run of the
	// agent that did not learn what became of it.
	Uncertain bool
}

// Verdict is what became of a record.
type Verdict uint8

// Verdicts. Unknown is that of records that were under way when the context
// ended: they may or may not be stored and have to be shipped again.
const (
	Unknown Verdict = iota
	Stored
	AlreadyStored // by an earlier attempt: stored, and counted besides
	Diverted      // stored, but in the failure store of the data stream
	DeadLettered
)

// Destination takes records.
type Destination interface {
	// Ship returns a verdict for each record, in their order, when all have
	// one. It tries for as long as it takes; the error is the context's, and
	// only then are there Unknown verdicts. It may be called concurrently and
	// keeps no reference to the records.
	Ship(ctx context.Context, records []Record) ([]Verdict, error)
	// Hold says in words why records wait for somebody to repair something;
	// empty while nothing does.
	Hold() string
	Close() error
}
