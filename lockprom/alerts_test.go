package lockprom_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/lockprom"
)

// everything returns a registry with a series of every metric.
func everything(t *testing.T) *prometheus.Registry {
	m := lockprom.New()
	l := lock.NewMemory(lock.Options{Observer: m.Observe})
	for _, name := range []string{"backup", "report"} {
		lease, err := l.Acquire(t.Context(), lock.Job{ComponentName: "shop", JobName: name})
		require.NoError(t, err)
		_, err = l.Acquire(t.Context(), lock.Job{ComponentName: "shop", JobName: name})
		require.Error(t, err)
		t.Cleanup(func() { lease.Release(context.WithoutCancel(t.Context())) })
	}
	require.NoError(t, l.Lock("shop", "a", "mail", "1", 0))
	require.NoError(t, l.Unlock("shop", "a", "mail", "1"))
	return registered(t, m, lockprom.NewTable(l, 0))
}

// stored returns the names of the labels of each metric, as Prometheus stores its series.
func stored(t *testing.T) map[string][]string {
	families, err := everything(t).Gather()
	require.NoError(t, err)
	all := map[string][]string{}
	for _, f := range families {
		labels := []string{"instance", "job"}
		for _, l := range f.GetMetric()[0].GetLabel() {
			require.NotContains(t, labels, l.GetName(), "Prometheus would rename it")
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		all[f.GetName()] = labels
	}
	return all
}

// The alerts and their cases only use series that exist: others would never fire.
func TestAlerts_series(t *testing.T) {
	known := stored(t)
	for _, file := range []string{"alerts.yml", "alerts_test.yml"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		names := regexp.MustCompile(`\block_\w+`).FindAllString(string(text), -1)
		require.NotEmpty(t, names)
		for _, name := range names {
			if name != "lock_component" && name != "lock_job" {
				require.Contains(t, known, name, file)
			}
		}
	}
	text, err := os.ReadFile("alerts_test.yml")
	require.NoError(t, err)
	series := regexp.MustCompile(`series: '(lock_\w+)\{(.*)\}'`).FindAllStringSubmatch(string(text),
		-1)
	require.Len(t, series, strings.Count(string(text), "series: '"))
	for _, s := range series {
		var labels []string
		for _, l := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(s[2], -1) {
			labels = append(labels, l[1])
		}
		slices.Sort(labels)
		require.Equal(t, known[s[1]], labels, s[0])
	}
}

// The alerts fire when they should, and not otherwise. Debian's package prometheus has promtool.
func TestAlerts(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("there is no promtool")
	}
	for _, args := range [][]string{{"check", "rules", "alerts.yml"},
		{"test", "rules", "alerts_test.yml"}} {
		out, err := exec.Command(promtool, args...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}

// A Prometheus with default settings stores the labels as they are.
func TestMetrics_scraped(t *testing.T) {
	program, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("there is no prometheus")
	}
	target := httptest.NewServer(promhttp.HandlerFor(everything(t), promhttp.HandlerOpts{}))
	defer target.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := free.Addr().String()
	require.NoError(t, free.Close())

	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	rules, err := filepath.Abs("alerts.yml")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(config, []byte(fmt.Sprintf(`
global: {scrape_interval: 100ms, scrape_timeout: 100ms, evaluation_interval: 100ms}
rule_files: [%q]
scrape_configs: [{job_name: shop, static_configs: [{targets: [%q]}]}]
`, rules, strings.TrimPrefix(target.URL, "http://"))), 0o600))
	var out strings.Builder
	server := exec.Command(program, "--config.file="+config, "--storage.tsdb.path="+dir,
		"--web.listen-address="+address)
	server.Stdout, server.Stderr = &out, &out
	require.NoError(t, server.Start())
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	defer func() {
		server.Process.Kill()
		<-ended
	}()

	// query returns the label sets of a query's answer, without the instance.
	query := func(q string) (all []map[string]string) {
		response, err := http.Get("http://" + address + "/api/v1/query?query=" + url.QueryEscape(q))
		if err != nil {
			return nil // it is starting
		}
		defer response.Body.Close()
		var answer struct {
			Data struct {
				Result []struct{ Metric map[string]string }
			}
		}
		if json.NewDecoder(response.Body).Decode(&answer) != nil {
			return nil
		}
		for _, r := range answer.Data.Result {
			delete(r.Metric, "instance")
			all = append(all, r.Metric)
		}
		return all
	}
	deadline := time.Now().Add(time.Minute)
	for ; len(query("lock_table_up")) == 0; time.Sleep(50 * time.Millisecond) {
		if len(ended) > 0 || time.Now().After(deadline) {
			t.Fatalf("Prometheus has scraped nothing: %s", out.String())
		}
	}
	require.ElementsMatch(t, []map[string]string{
		{"__name__": "lock_lease_held", "job": "shop", "lock_component": "shop", "lock_job": "backup"},
		{"__name__": "lock_lease_held", "job": "shop", "lock_component": "shop", "lock_job": "report"},
	}, query("lock_lease_held"))
	for name, labels := range stored(t) {
		for _, suffix := range []string{"", "_count"} {
			for _, got := range query(name + suffix) {
				got["instance"] = ""
				delete(got, "__name__")
				for label := range got {
					require.Contains(t, labels, label, name)
				}
			}
		}
	}
	require.Len(t, query("lock_held_duration_seconds_count"), 1)
	require.Empty(t, query(`sum by (job, lock_component, lock_job) (lock_lease_held) > 1`),
		"two leases of one process")
}
