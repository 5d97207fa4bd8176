//go:build linux

package torture

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// skewEnv is the variable with the error, in seconds, of the wall clock of a client that
// BuildSkewed has built.
const skewEnv = "TORTURE_SKEW"

// BuildSkewed builds a package whose time.Now is wrong by what the environment says. The
// monotonic clock stays right, as on a machine whose clock is set wrong. libfaketime can't do
// that for Go programs, which ask the kernel and not the C library.
func BuildSkewed(dir, pkg string) (exe string, err error) {
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	original := filepath.Join(strings.TrimSpace(string(goroot)), "src", "time", "time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	const reading = "sec, nsec, mono := runtimeNow()"
	if strings.Count(string(source), reading) == 0 {
		return "", fmt.Errorf("time.Now of %s is not as expected", runtime.Version())
	}
	skewed := strings.ReplaceAll(string(source), reading, reading+"\n\tsec += skew()") + `
func skew() (seconds int64) {
	text, _ := syscall.Getenv("` + skewEnv + `")
	sign := int64(1)
	for _, c := range text {
		if c == '-' {
			sign = -1
		} else {
			seconds = 10*seconds + int64(c-'0')
		}
	}
	return sign * seconds
}
`
	skewed = strings.Replace(skewed, "import (", "import (\n\t\"syscall\"", 1)
	file := filepath.Join(dir, "time.go")
	if err := os.WriteFile(file, []byte(skewed), 0o666); err != nil {
		return "", err
	}
	overlay, _ := json.Marshal(map[string]map[string]string{"Replace": {original: file}})
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o666); err != nil {
		return "", err
	}
	exe = filepath.Join(dir, "skewed")
	if out, err := exec.Command("go", "build", "-overlay", list, "-o", exe,
		pkg).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return exe, nil
}
