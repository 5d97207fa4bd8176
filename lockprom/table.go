package lockprom

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cloudtrust/go-jobs/lock"
)

var (
	tableUp = prometheus.NewDesc("lock_table_up",
		"Whether the table could be listed (1) or not (0).", nil, nil)
	tableHeld    = describe("lock_table_held", "Whether the lock is held by anybody (1) or not (0).")
	tableEnabled = describe("lock_table_enabled", "Whether the job is enabled (1) or not (0).")
	tableAge     = describe("lock_table_age_seconds",
		"Time since the lock was acquired or renewed, by the database's clock.")
)

type table struct {
	l       *lock.Lock
	timeout time.Duration
}

// NewTable returns a collector that lists the table of l at each scrape, and has for each row
//
//	lock_table_held{lock_component, lock_job}          1 while anybody holds the lock, else 0
//	lock_table_enabled{lock_component, lock_job}       1, or 0 after Disable
//	lock_table_age_seconds{lock_component, lock_job}   since acquired or renewed; absent if never
//
// and lock_table_up, which is 0 if the listing failed; the scrape doesn't fail if the database is
// away. timeout limits the listing; 0 and less mean 5 seconds.
//
// A scrape is one SELECT of all rows, and each row has three series, so use it for small tables.
// All instances return the same: register it in one, or use max() in queries. [MaxJobs] doesn't
// limit the rows.
func NewTable(l *lock.Lock, timeout time.Duration) prometheus.Collector {
	if timeout <= 0 {
		timeout = 5 * time.Second
	}
	return table{l, timeout}
}

func (t table) Describe(ch chan<- *prometheus.Desc) {
	ch <- tableUp
	ch <- tableHeld
	ch <- tableEnabled
	ch <- tableAge
}

func (t table) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), t.timeout)
	defer cancel()
	rows, err := t.l.List(ctx)
	ch <- gauge(tableUp, number(err == nil))
	if err != nil {
		return
	}
	for _, row := range rows {
		// SQLite may hold text that is not UTF-8, written by others.
		component, job := strings.ToValidUTF8(row.ComponentName,
			"\uFFFD"), strings.ToValidUTF8(row.JobName, "\uFFFD")
		ch <- gauge(tableHeld, number(row.Locked), component, job)
		ch <- gauge(tableEnabled, number(row.Enabled), component, job)
		if row.Holder.LockTime.Year() > 1 {
			ch <- gauge(tableAge, row.Holder.Age.Seconds(), component, job)
		}
	}
}
