// Package fluentbit owns what the Fluent Bit output plugin "nines" does: it makes
// the records of a chunk into ECS documents and has agent/ship store them. The
// package refuses cgo and msgpack; those are in package plugin below it, which
// only translates. It refuses to buffer: Fluent Bit's chunks are the buffer.
//
// Data enters by Flush, one chunk at a time and concurrently, and leaves when
// each record has a verdict of the destination. Flush waits for verdicts at
// most Timeout; then the answer is Retry and Fluent Bit keeps the chunk.
//
// # Configuration
//
//	[SERVICE]
//	    Plugins_File      plugins.conf    # [PLUGINS] Path <folder>/nines.so
//	    storage.path      <folder of chunks that survive a restart>
//
//	[INPUT]
//	    Name              tail
//	    Path              /var/log/app/*.log
//	    Tag               app
//	    storage.type      filesystem
//
//	[OUTPUT]
//	    Name              nines
//	    Match             *
//	    URLs              https://elasticsearch:9200
//	    Username          nines
//	    Password_File     /etc/nines/password
//	    CA_File           /etc/nines/ca.pem
//	    Cluster           production
//	    Dead_Letters      /var/lib/nines/dead-letters
//	    Timeout           10s
//	    Workers           1
//	    Retry_Limit       no_limits
//
//	key            meaning                                            without it
//	URLs           Elasticsearch, or what speaks its _bulk; commas    an error
//	Username       of Elasticsearch, with Password_File               no user
//	Password_File  file with the password, read again when refused    no user
//	CA_File        PEM of the authorities                             those of the system
//	Cluster        orchestrator.cluster.name, and the namespace       default
//	Dead_Letters   folder of what Elasticsearch refuses for good      an error
//	Timeout        longest wait for the verdicts of a chunk           10s
//
// Retry_Limit no_limits is not a matter of taste: Fluent Bit tries a chunk once
// more by default and then drops it, so that an outage of a minute loses logs.
// Workers 1 gives the plugin a thread of its own; without it the wait for
// Elasticsearch stops Fluent Bit's inputs too.
//
// # What is refused
//
// A record that Elasticsearch refuses for good is written with its error to the
// dead letters (NDJSON, synced, 64 MiB, oldest removed first and said so) and
// the chunk goes on. The folder belongs to one [OUTPUT] alone and is locked. A
// chunk that is sent again because some other record had no verdict in time
// writes its dead letters again, under the same _id.
//
// # Documents
//
// The text of the key log, or else message, is the message, without the newline
// at its end. All other keys stand as one JSON text in fluentbit.record: kept,
// never made into fields, whatever applications call their keys. Text that is
// no UTF-8 has U+FFFD there; the flag invalid_utf8 says so, and a message as it
// was stands in nines.message_base64. Other flags in log.flags: converted (a
// value of a type without JSON was kept as text), bad_time (the time was not
// readable or not of the years 1970 to 9999; @timestamp is when it came here and
// fluentbit.time what was there), unparsed (the entry was not a time and a record; its text
// is the message and its bytes nines.message_base64), group (what Fluent Bit
// says once for the records that follow it). The metadata of Fluent Bit's second
// format is not kept: fluent-bit-go does not hand it out.
//
// The _id is made of tag, chunk and place in the chunk, so that a chunk that
// comes again is stored once. The price: two chunks with the same tag and bytes,
// times included, are one to us, and counted as already stored. Times in
// nanoseconds, which Fluent Bit uses unless a parser reads others, exclude it.
package fluentbit
