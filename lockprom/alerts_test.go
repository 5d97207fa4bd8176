package lockprom_test

import (
	"os"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/lockprom"
)

// TestTheAlertsAreAboutMetricsThatThereAre: one about another would never fire.
func TestTheAlertsAreAboutMetricsThatThereAre(t *testing.T) {
	known := map[string]bool{}
	described := make(chan *prometheus.Desc, 100)
	lockprom.New().Describe(described)
	lockprom.NewTable(lock.NewMemory(lock.Options{}), time.Second).Describe(described)
	close(described)
	for desc := range described {
		known[regexp.MustCompile(`fqName: "(\w+)"`).FindStringSubmatch(desc.String())[1]] = true
	}
	for _, file := range []string{"alerts.yml", "alerts_test.yml"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		names := regexp.MustCompile(`\block_\w+`).FindAllString(string(text), -1)
		require.NotEmpty(t, names)
		for _, name := range names {
			require.True(t, known[name], "%s: there is no %s", file, name)
		}
	}
}

// TestTheAlertsFireWhenTheyShould and not otherwise, by the cases of alerts_test.yml. Debian's package prometheus has promtool.
func TestTheAlertsFireWhenTheyShould(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("there is no promtool")
	}
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		out, err := exec.Command(promtool, args...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}
