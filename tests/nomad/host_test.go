// A host for one driver process, as small as Nomad's own: the go-plugin client of the real agent, the
// schema conversion of the real agent, the driver binary named by DRIVER_BINARY.
package nomad

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/nomad/client/lib/numalib"
	"github.com/hashicorp/nomad/helper/pluginutils/hclspecutils"
	"github.com/hashicorp/nomad/helper/pluginutils/hclutils"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/shared/hclspec"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/msgpack"
)

const (
	driverName = "jenkins-agent"
	apiVersion = "v0.1.0"
	// A generous end for everything that should take milliseconds.
	patience = 20 * time.Second
)

// binary returns the driver under test, or fails with what to run.
func binary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("DRIVER_BINARY")
	if path == "" {
		t.Fatal("DRIVER_BINARY is not set: run scripts/test, or set it to build/release/driver/nomad-driver-jenkins-agent")
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no driver at DRIVER_BINARY: %v: run scripts/build", err)
	}
	return path
}

// host is one running driver process and its two interfaces.
type host struct {
	t      *testing.T
	client *goplugin.Client
	base   base.BasePlugin
	driver drivers.DriverPlugin
	log    *strings.Builder
}

// launch starts the driver and does the handshake; the process ends with the test.
func launch(t *testing.T) *host {
	t.Helper()
	logger := hclog.New(&hclog.LoggerOptions{Name: "host", Level: hclog.Trace, Output: testLog{t}})
	command := exec.Command(binary(t))
	command.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	client := goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  base.Handshake,
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		Plugins: map[string]goplugin.Plugin{
			base.PluginTypeBase:   &base.PluginBase{},
			base.PluginTypeDriver: drivers.NewDriverPlugin(nil, logger),
		},
		Cmd:    command,
		Logger: logger,
	})
	t.Cleanup(client.Kill)
	rpc, err := client.Client()
	must(t, err)
	must(t, rpc.Ping())
	baseRaw, err := rpc.Dispense(base.PluginTypeBase)
	must(t, err)
	driverRaw, err := rpc.Dispense(base.PluginTypeDriver)
	must(t, err)
	return &host{t: t, client: client, base: baseRaw.(base.BasePlugin), driver: driverRaw.(drivers.DriverPlugin)}
}

// launchConfigured is a driver that owns stateDir and may start tasks.
func launchConfigured(t *testing.T, stateDir string) *host {
	t.Helper()
	h := launch(t)
	must(t, h.configure(map[string]any{"state_dir": stateDir}))
	return h
}

func (h *host) pid() int { return h.client.ReattachConfig().Pid }

// configure is the agent's way from a `config {}` block to SetConfig of the process that it keeps.
func (h *host) configure(config map[string]any) error {
	return h.setConfig(config, &base.AgentConfig{Driver: &base.ClientDriverConfig{
		ClientMinPort: 14000,
		ClientMaxPort: 14512,
		Topology:      numalib.Scan(numalib.PlatformScanners(false)),
	}})
}

// validate is what the agent does at its start, with a process that it ends at once.
func (h *host) validate(config map[string]any) error { return h.setConfig(config, nil) }

func (h *host) setConfig(config map[string]any, agent *base.AgentConfig) error {
	schema, err := h.base.ConfigSchema()
	if err != nil {
		return err
	}
	encoded, err := encode(schema, config)
	if err != nil {
		return err
	}
	return h.base.SetConfig(&base.Config{ApiVersion: apiVersion, PluginConfig: encoded, AgentConfig: agent})
}

// taskConfigValue is the agent's way from a job's `config {}` to the value sent with StartTask.
func (h *host) taskConfigValue(config map[string]any) (cty.Value, error) {
	schema, err := h.driver.TaskConfigSchema()
	if err != nil {
		return cty.NilVal, err
	}
	return decode(schema, config)
}

func decode(schema *hclspec.Spec, config map[string]any) (cty.Value, error) {
	spec, diagnostics := hclspecutils.Convert(schema)
	if diagnostics.HasErrors() {
		return cty.NilVal, fmt.Errorf("schema: %w", diagnostics)
	}
	value, _, errs := hclutils.ParseHclInterface(config, spec, nil)
	return value, errors.Join(errs...)
}

func encode(schema *hclspec.Spec, config map[string]any) ([]byte, error) {
	value, err := decode(schema, config)
	if err != nil {
		return nil, err
	}
	return msgpack.Marshal(value, value.Type())
}

// --- small things every test needs ---------------------------------------------------------------

type testLog struct{ t *testing.T }

func (w testLog) Write(line []byte) (int, error) {
	// go-plugin's readers may outlive the test by a moment; writing to a finished t panics.
	defer func() { _ = recover() }()
	w.t.Log(strings.TrimRight(string(line), "\n"))
	return len(line), nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mustFail checks that an error names what an operator has to look at.
func mustFail(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("expected an error that names %q", words)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not name %q: %v", word, err)
		}
	}
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for: %s", patience, what)
		}
	}
}

// stateDirectory is a state_dir on a short path: sockets live below it.
func stateDirectory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "jenkins-agent-state-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return filepath.Join(dir, "state")
}
