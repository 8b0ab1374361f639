#!/bin/sh
# The main job on this very host, as an ordinary user: started by `make run`,
# which has built bin/. State lies in $NINES_STATE (default .state); delete that
# folder to begin anew. NINES_LISTEN moves the aggregator (127.0.0.1:9190).
set -eu
cd "$(dirname "$0")/.."
state=${NINES_STATE:-.state}
listen=${NINES_LISTEN:-127.0.0.1:9190}
mkdir -p "$state/log"
state=$(cd "$state" && pwd)
config=$state/agent.yaml

if [ ! -e "$config" ]; then
	cat >"$config" <<YAML
# Written by the first \`make run\`; change it as you like, it is kept.
# bin/nines-agent help lists every key.
state: "$state/agent"
metrics:
  send_to: [{url: "http://$listen/api/v1/write"}]
logs:
  sources:
  - type: files
    paths: ["/var/log/*.log", "$state/log/aggregator.log"]
  # No Elasticsearch is configured: records go to NDJSON files of bounded size.
  # destination: {elasticsearch: {urls: ["https://HOST:9200"], username: "", password_file: ""}}
  destination: {files: {directory: "$state/logs"}}
YAML
fi

# What the programs say about themselves; one older file is kept of each.
for name in aggregator agent; do
	[ ! -e "$state/log/$name.log" ] || mv "$state/log/$name.log" "$state/log/$name.log.1"
done

# Groups of their own: Ctrl-C reaches this script alone, which then stops the
# programs in order. Without a terminal there is nothing to shield them from.
if [ -t 0 ] || [ -t 1 ]; then set -m; fi

aggregator='' agent=''
stop() {
	trap '' INT TERM
	code=${1:-0}
	# The agent first: it hands over what it still holds.
	for pid in $agent $aggregator; do
		kill -TERM "$pid" 2>/dev/null || continue
		wait "$pid" || code=$?
	done
	echo "stopped; the next make run goes on from $state"
	exit "$code"
}
trap 'echo; stop' INT TERM

failed() {
	echo "$1 ended; the end of what it said ($state/log/$2.log):" >&2
	tail -n 15 "$state/log/$2.log" >&2
	stop 1
}

: >"$state/log/aggregator.out" # not that of the last run: it says when to go on
bin/nines-aggregator serve --listen "$listen" --data "$state/aggregator" --log-format json \
	>"$state/log/aggregator.out" 2>"$state/log/aggregator.log" &
aggregator=$!
until [ -s "$state/log/aggregator.out" ]; do
	kill -0 "$aggregator" 2>/dev/null || failed nines-aggregator aggregator
	sleep 1
done
bin/nines-agent check "$config" | sed -e "1d" || true
cat "$state/log/aggregator.out"
bin/nines-agent --config "$config" --log-format json >"$state/log/agent.log" 2>&1 &
agent=$!
echo "  log records $state/logs (NDJSON, bounded)"
echo "  their logs  $state/log"
echo "  the agent   $config"
echo "Ctrl-C stops both."
while sleep 1; do
	kill -0 "$aggregator" 2>/dev/null || { aggregator=''; failed nines-aggregator aggregator; }
	kill -0 "$agent" 2>/dev/null || { agent=''; failed nines-agent agent; }
done
