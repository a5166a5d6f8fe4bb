#!/bin/sh
# Calls with curl alone: sh curl.sh http://127.0.0.1:8080
url=${1:-http://127.0.0.1:8080}

call() {
    curl --silent --show-error --max-time 10 --header 'Content-Type: application/json' \
        --data "$1" --write-out '\n' "$url"
}

call '{"jsonrpc": "2.0", "method": "divide", "params": [1, 4], "id": 1}'
call '{"jsonrpc": "2.0", "method": "text.shout", "params": {"words": "anybody there"}, "id": 2}'
call '{"jsonrpc": "2.0", "method": "divide", "params": [1, 0], "id": 3}'
call '[{"jsonrpc": "2.0", "method": "divide", "params": [6, 3], "id": 4}]'
