package nomad

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/drivers/fsisolation"
)

func TestPluginInfoNamesTheDriver(t *testing.T) {
	info, err := launch(t).base.PluginInfo()
	must(t, err)
	if info.Name != driverName || info.Type != base.PluginTypeDriver {
		t.Errorf("name %q, type %q", info.Name, info.Type)
	}
	if !slices.Contains(info.PluginApiVersions, apiVersion) {
		t.Errorf("API versions %v lack %s", info.PluginApiVersions, apiVersion)
	}
	if info.PluginVersion == "" {
		t.Error("no plugin version")
	}
}

// Nomad launches, asks and kills twice at each agent start: that must leave nothing and take no time.
func TestProbeLaunchEndsAtOnce(t *testing.T) {
	h := launch(t)
	_, err := h.base.ConfigSchema()
	must(t, err)
	h.client.Kill()
	if !h.client.Exited() {
		t.Error("the driver is still alive after Kill")
	}
}

func TestEverySchemaIsAcceptedByNomad(t *testing.T) {
	h := launch(t)
	plugin, err := h.base.ConfigSchema()
	must(t, err)
	if _, err := decode(plugin, map[string]any{}); err != nil {
		t.Errorf("plugin schema with an empty block: %v", err)
	}
	if _, err := h.taskConfigValue(map[string]any{}); err != nil {
		t.Errorf("task schema with an empty block: %v", err)
	}
}

func TestTaskSchemaAcceptsWhatTheDesignPromises(t *testing.T) {
	h := launch(t)
	for name, config := range map[string]map[string]any{
		"agent":   {"agent": []any{map[string]any{"url": "http://127.0.0.1:1/", "name": "n1"}}},
		"command": {"command": "/bin/sleep", "args": []any{"1"}},
		"java":    {"jar_path": "local/a.jar", "jvm_options": []any{"-Xmx64m"}, "args": []any{"x"}},
	} {
		if _, err := h.taskConfigValue(config); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTaskSchemaRefusesUnknownOptionsAndTypes(t *testing.T) {
	h := launch(t)
	_, err := h.taskConfigValue(map[string]any{"comand": "/bin/sleep"})
	mustFail(t, err, "comand")
	_, err = h.taskConfigValue(map[string]any{"command": []any{"/bin/sleep"}})
	mustFail(t, err, "command")
	_, err = h.taskConfigValue(map[string]any{
		"agent": []any{map[string]any{"url": "http://127.0.0.1:1/", "nmae": "n1"}}})
	mustFail(t, err, "nmae")
}

func TestSetConfigAcceptsAnEmptyBlock(t *testing.T) {
	h := launch(t)
	must(t, h.validate(map[string]any{}))
	must(t, h.base.SetConfig(&base.Config{ApiVersion: apiVersion})) // no plugin block: no bytes at all
}

// At its start the agent validates the configuration twice with a process of its own, also beside the one
// that lives on from before.
func TestValidationTouchesNothing(t *testing.T) {
	config := map[string]any{"state_dir": stateDirectory(t)}
	h := launch(t)
	must(t, h.validate(config))
	must(t, h.validate(config))
	if visible(config["state_dir"].(string)) {
		t.Error("the state directory has been made")
	}
	owner := launch(t)
	must(t, owner.configure(config))
	must(t, h.validate(config))
	must(t, launch(t).validate(config))
	h.client.Kill()
	_, err := owner.driver.Capabilities()
	must(t, err)
}

func TestSetConfigTwiceIsHarmless(t *testing.T) {
	config := map[string]any{"state_dir": stateDirectory(t)} // first: it is removed after the plugin has ended
	h := launch(t)
	must(t, h.configure(config))
	must(t, h.configure(config))
}

func TestSetConfigRefusesBadValuesByName(t *testing.T) {
	h := launch(t)
	mustFail(t, h.configure(map[string]any{"state_dir": "relative/path"}), "state_dir")
	mustFail(t, h.configure(map[string]any{"state_dir": stateDirectory(t), "log_collection": "syslog"}),
		"log_collection", "syslog")
	mustFail(t, h.configure(map[string]any{"statedir": "/tmp/x"}), "statedir")
}

func TestCapabilities(t *testing.T) {
	capabilities, err := launchConfigured(t, stateDirectory(t)).driver.Capabilities()
	must(t, err)
	if !capabilities.SendSignals {
		t.Error("send_signals is off")
	}
	if !capabilities.Exec {
		t.Error("exec is off")
	}
	if capabilities.FSIsolation != fsisolation.Image {
		t.Errorf("file system isolation %q", capabilities.FSIsolation)
	}
	if !capabilities.DynamicWorkloadUsers {
		t.Error("dynamic_workload_users is off")
	}
	if capabilities.MustInitiateNetwork {
		t.Error("must_create_network is on: Nomad makes the network")
	}
	for _, mode := range []drivers.NetIsolationMode{drivers.NetIsolationModeHost, drivers.NetIsolationModeGroup} {
		if !capabilities.HasNetIsolationMode(mode) {
			t.Errorf("network mode %q is missing", mode)
		}
	}
}

func TestFingerprintIsHealthyAtOnceAndStaysOpen(t *testing.T) {
	requireRoot(t)
	h := launchConfigured(t, stateDirectory(t))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := h.driver.Fingerprint(ctx)
	must(t, err)
	first := <-stream
	must(t, first.Err)
	if first.Health != drivers.HealthStateHealthy {
		t.Fatalf("health %q: %s", first.Health, first.HealthDescription)
	}
	prefix := "driver." + driverName
	for key, value := range first.Attributes {
		t.Logf("%s = %s", key, value.GoString())
		if !strings.HasPrefix(strings.TrimPrefix(key, "unique."), prefix) {
			t.Errorf("attribute %q does not begin with %q", key, prefix)
		}
	}
	if _, found := first.Attributes[prefix+".version"]; !found {
		t.Errorf("attribute %s.version is missing", prefix)
	}
	// Ending this stream makes the agent ask again in a hot loop.
	select {
	case next, open := <-stream:
		if !open || next.Err != nil {
			t.Errorf("the stream ended: %+v", next)
		}
	case <-time.After(300 * time.Millisecond):
	}
}

func TestTaskEventsStaysOpen(t *testing.T) {
	h := launchConfigured(t, stateDirectory(t))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := h.driver.TaskEvents(ctx)
	must(t, err)
	select {
	case event, open := <-stream:
		t.Errorf("expected silence, got %+v, open %v", event, open)
	case <-time.After(300 * time.Millisecond):
	}
}

func TestSocketIsGoneAfterTheEnd(t *testing.T) {
	h := launchConfigured(t, stateDirectory(t))
	socket := h.client.ReattachConfig().Addr.String()
	h.client.Kill()
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		entries, _ := os.ReadDir(filepath.Dir(socket))
		t.Errorf("socket %s is left behind beside %v", socket, entries)
	}
}
