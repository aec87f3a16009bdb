package nomad

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/plugins/drivers"
)

// What a job asks for, as its program sees it.

// expectOutput runs the task to its good end; this is all that it writes to stdout.
func (task *task) expectOutput(h *host, want string) {
	task.t.Helper()
	task.start(h)
	if result := task.wait(h); !result.Successful() {
		task.t.Fatalf("it ended with %+v and said %q", result, task.stderr.text())
	}
	eventually(task.t, "the output "+want, func() bool { return len(task.stdout.text()) >= len(want) })
	if got := task.stdout.text(); got != want {
		task.t.Errorf("it wrote %q, not %q", got, want)
	}
}

func TestWorkDirIsTheJobsChoice(t *testing.T) {
	requireRoot(t)
	h := launchConfigured(t, stateDirectory(t))
	newTask(t, h, map[string]any{"command": "/bin/pwd"}).expectOutput(h, "/local\n")
	newTask(t, h, map[string]any{"command": "/bin/pwd", "work_dir": "/tmp"}).expectOutput(h, "/tmp\n")
}

func TestVolumesAreReadOnlyOrWritableAsAsked(t *testing.T) {
	requireRoot(t)
	h := launchConfigured(t, stateDirectory(t))
	fixed, open := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(fixed, "file"), []byte("from the host\n"), 0o644))
	for _, dir := range []string{fixed, open} {
		must(t, os.Chmod(dir, 0o777))
	}
	task := newTask(t, h, shell("cat /fixed/file; touch /fixed/new 2>/dev/null || echo refused; echo hello > /open/file"))
	task.config.Mounts = []*drivers.MountConfig{
		{TaskPath: "/fixed", HostPath: fixed, Readonly: true},
		{TaskPath: "/open", HostPath: open},
	}
	task.expectOutput(h, "from the host\nrefused\n")
	if written, err := os.ReadFile(filepath.Join(open, "file")); err != nil || string(written) != "hello\n" {
		t.Errorf("on the host: %q, %v", written, err)
	}
	if visible(filepath.Join(fixed, "new")) {
		t.Error("the read-only volume was written to")
	}
}

// Root and dac_override pass by the node's mode: what remains is the device controller.
func TestADeviceIsUsedAsAssigned(t *testing.T) {
	requireRoot(t)
	const disk = "/dev/loop0" // without a file behind it there is nothing to lose
	if file, err := os.OpenFile(disk, os.O_RDWR, 0); err != nil {
		t.Skipf("needs a device: %v", err)
	} else {
		file.Close()
	}
	state := stateDirectory(t) // first: it is removed after the plugin has ended
	h := launch(t)
	must(t, h.configure(map[string]any{"state_dir": state, "allow_root": true,
		"allow_caps": []any{"dac_override"}}))
	for permissions, want := range map[string]string{"r": "read\nrefused\n", "rw": "read\nwritable\n"} {
		config := shell("head -c 1 /dev/gpu/0 && echo read; (exec 3<>/dev/gpu/0) 2>/dev/null && echo writable || echo refused")
		config["cap_add"] = []any{"dac_override"}
		task := newTask(t, h, config)
		task.config.User = "root"
		task.config.Devices = []*drivers.DeviceConfig{
			{HostPath: disk, TaskPath: "/dev/gpu/0", Permissions: permissions}}
		task.expectOutput(h, want)
	}
}

func TestDnsIsTheJobsChoice(t *testing.T) {
	requireRoot(t)
	h := launchConfigured(t, stateDirectory(t))
	task := newTask(t, h, shell("grep -v '^#' /etc/resolv.conf | sort"))
	task.config.DNS = &drivers.DNSConfig{Servers: []string{"10.0.0.53"}, Searches: []string{"example.org"},
		Options: []string{"ndots:2"}}
	task.expectOutput(h, "nameserver 10.0.0.53\noptions ndots:2\nsearch example.org\n")
}

func TestTheAllocDirIsShared(t *testing.T) {
	requireRoot(t)
	h := launchConfigured(t, stateDirectory(t))
	task := newTask(t, h, shell("cat $NOMAD_ALLOC_DIR/data/given; echo back > $NOMAD_ALLOC_DIR/data/made"))
	data := filepath.Join(task.config.AllocDir, "alloc/data")
	must(t, os.WriteFile(filepath.Join(data, "given"), []byte("given\n"), 0o644))
	task.expectOutput(h, "given\n")
	if made, err := os.ReadFile(filepath.Join(data, "made")); err != nil || string(made) != "back\n" {
		t.Errorf("on the host: %q, %v", made, err)
	}
}

const javaSource = `public class Hello {
  public static void main(String[] args) {
    System.out.println(System.getProperty("greeting") + " " + String.join("|", args));
  }
}`

// The options of Nomad's java driver: a class, and a jar.
func TestJavaProgramsRunAsUnderTheJavaDriver(t *testing.T) {
	requireRoot(t)
	for _, tool := range []string{"javac", "jar"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs a JDK: %v", err)
		}
	}
	h := launchConfigured(t, stateDirectory(t))
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "Hello.java"), []byte(javaSource), 0o644))
	for _, words := range [][]string{
		{"javac", "--release", "11", "Hello.java"},
		{"jar", "cfe", "hello.jar", "Hello", "Hello.class"},
	} {
		command := exec.Command(words[0], words[1:]...)
		command.Dir = dir
		if output, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(words, " "), err, output)
		}
	}
	for name, config := range map[string]map[string]any{
		"class": {"class": "Hello", "class_path": "/local"},
		"jar":   {"jar_path": "local/hello.jar"},
	} {
		t.Run(name, func(t *testing.T) {
			config["jvm_options"] = []any{"-Dgreeting=hello there"}
			config["args"] = []any{"a b", "\"c\""}
			task := newTask(t, h, config)
			task.config.Resources.NomadResources.Memory.MemoryMB = 256
			task.config.Resources.LinuxResources.MemoryLimitBytes = 256 << 20
			for _, file := range []string{"Hello.class", "hello.jar"} {
				content, err := os.ReadFile(filepath.Join(dir, file))
				must(t, err)
				must(t, os.WriteFile(filepath.Join(task.config.AllocDir, "agent/local", file), content, 0o644))
			}
			task.expectOutput(h, "hello there a b|\"c\"\n")
		})
	}
}
