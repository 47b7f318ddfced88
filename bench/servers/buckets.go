package servers

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// fillScript makes the buckets of the addresses from one number to another. They owe up to an hour.
var fillScript = redis.NewScript(`
local now = redis.call('TIME')
for i = tonumber(ARGV[1]), tonumber(ARGV[2]) - 1 do
  local full = string.format('%d%s000', now[1] + 60 + i % 3600, string.format('%06d', now[2]))
  redis.call('SET', string.format('refrakt:gate:bucket:run:ip:10.%d.%d.%d', math.floor(i / 65536), math.floor(i / 256) % 256, i % 256), full, 'EX', 7200)
end`)

// FillBuckets makes the buckets of n addresses under the policy run, none of them full.
func (r *Redis) FillBuckets(ctx context.Context, n int) error {
	const each = 2000
	for from := 0; from < n; from += each {
		if err := fillScript.Run(ctx, r, nil, from, min(n, from+each)).Err(); err != nil && err != redis.Nil { //nolint:errorlint // it returns nothing
			return fmt.Errorf("fill buckets: %w", err)
		}
	}
	return nil
}
