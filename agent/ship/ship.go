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

// Redriver is a destination that keeps what it could not store, and can try
// that again after a repair.
type Redriver interface {
	// Redrive sends the dead letters again that are there when it begins. It
	// calls each after every batch, with what became of its records; an error
	// of each ends it. When it ends early the rest are dead letters still.
	Redrive(ctx context.Context, after Position, each func(Redriven) error) (RedriveSum, error)
}

// Position says how far dead letters were redriven. Who keeps an account of
// them saves it together with what each told, and gives it to the next Redrive:
// then no crash makes a record count twice. The zero Position is before all.
type Position struct {
	File   uint64 `json:"file"`
	First  string `json:"first"`  // a hash of the file's beginning: another file may have its number one day
	Offset int64  `json:"offset"` // in the file, behind the last record that was told
}

// Redriven is a batch of dead letters that were sent again.
type Redriven struct {
	Records     []RedrivenRecord
	Done, Total int // letters so far, and of all files
	Position    Position
}

// RedrivenRecord is what became of a dead letter. DeadLettered: it was refused
// again, and is a dead letter again with the new error.
type RedrivenRecord struct {
	ID      string
	Bytes   int64 // of the log that the record stands for
	Verdict Verdict
}

// RedriveSum counts letters.
type RedriveSum struct {
	Stored        int // now, those in a failure store included
	AlreadyStored int // by an earlier attempt
	RefusedAgain  int
	Repeated      int // a later letter has the same record: that one was sent
	Unreadable    int // are no letters; they are kept as they are
}
