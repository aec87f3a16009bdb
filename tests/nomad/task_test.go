package nomad

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/client/lib/cgroupslib"
	"github.com/hashicorp/nomad/helper/uuid"
	"github.com/hashicorp/nomad/nomad/structs"
	"github.com/hashicorp/nomad/plugins/drivers"
)

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// task is one allocation directory with one task in it, as the client has prepared it when StartTask comes.
type task struct {
	t      *testing.T
	config *drivers.TaskConfig
	stdout *collector
	stderr *collector
}

// newTask builds the directories, FIFOs and cgroups that the client makes, and the resources it sends.
func newTask(t *testing.T, h *host, config map[string]any) *task {
	t.Helper()
	requireRoot(t)
	allocID := uuid.Generate()
	allocDir, err := os.MkdirTemp("", "jenkins-agent-alloc-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(allocDir)) })
	must(t, os.Chmod(allocDir, 0o755))
	for _, dir := range []string{"alloc", "alloc/data", "alloc/logs", "alloc/tmp", "agent", "agent/local",
		"agent/secrets", "agent/private", "agent/tmp"} {
		must(t, os.MkdirAll(filepath.Join(allocDir, dir), 0o777))
		must(t, os.Chmod(filepath.Join(allocDir, dir), 0o777))
	}
	prepareCgroups(t, allocID, "agent")
	value, err := h.taskConfigValue(config)
	must(t, err)
	task := &task{t: t, config: &drivers.TaskConfig{
		ID:            allocID + "/agent/" + uuid.Short(),
		AllocID:       allocID,
		JobName:       "job",
		JobID:         "job",
		TaskGroupName: "group",
		Name:          "agent",
		Namespace:     "default",
		Env: map[string]string{
			"NOMAD_ALLOC_DIR":   "/alloc",
			"NOMAD_TASK_DIR":    "/local",
			"NOMAD_SECRETS_DIR": "/secrets",
			"NOMAD_ALLOC_ID":    allocID,
		},
		User:       "nobody",
		AllocDir:   allocDir,
		StdoutPath: filepath.Join(allocDir, "alloc/logs/.agent.stdout.fifo"),
		StderrPath: filepath.Join(allocDir, "alloc/logs/.agent.stderr.fifo"),
		Resources: &drivers.Resources{
			NomadResources: &structs.AllocatedTaskResources{
				Cpu:    structs.AllocatedCpuResources{CpuShares: 500},
				Memory: structs.AllocatedMemoryResources{MemoryMB: 128},
			},
			LinuxResources: &drivers.LinuxResources{
				CPUShares:        500,
				MemoryLimitBytes: 128 << 20,
				CpusetCgroupPath: cgroupslib.LinuxResourcesPath(allocID, "agent", false),
			},
		},
	}}
	must(t, task.config.EncodeDriverConfig(value))
	task.stdout = collect(t, task.config.StdoutPath)
	task.stderr = collect(t, task.config.StderrPath)
	return task
}

// prepareCgroups does what the client does at its own start and before each task.
func prepareCgroups(t *testing.T, allocID, name string) {
	t.Helper()
	cores, err := os.ReadFile("/sys/fs/cgroup/cpuset/cpuset.cpus")
	if err != nil {
		cores, err = os.ReadFile("/sys/fs/cgroup/cpuset.cpus.effective")
	}
	must(t, err)
	must(t, cgroupslib.Init(hclog.NewNullLogger(), strings.TrimSpace(string(cores))))
	if cgroupslib.GetMode() == cgroupslib.CG1 {
		// The client's partition does this when an allocation starts.
		must(t, os.WriteFile("/sys/fs/cgroup/cpuset/nomad/share/cpuset.cpus", cores, 0o644))
	}
	groups := cgroupslib.Factory(allocID, name, false)
	must(t, groups.Setup())
	t.Cleanup(func() {
		_ = groups.Kill()
		_ = groups.Teardown()
		left, _ := filepath.Glob("/sys/fs/cgroup/*/nomad/" + allocID + ".*")
		if len(left) > 0 {
			t.Errorf("cgroups left behind: %v", left)
		}
	})
}

// start starts the task; whatever the test does, it is destroyed at the end.
func (task *task) start(h *host) *drivers.TaskHandle {
	task.t.Helper()
	handle, network, err := h.driver.StartTask(task.config)
	must(task.t, err)
	task.t.Cleanup(func() { _ = h.driver.DestroyTask(task.config.ID, true) })
	if handle == nil || handle.Config == nil || handle.Config.ID != task.config.ID {
		task.t.Fatalf("the handle does not echo the task: %+v", handle)
	}
	if handle.Version < 1 || handle.State != drivers.TaskStateRunning || len(handle.DriverState) == 0 {
		task.t.Errorf("handle version %d, state %q, %d bytes of driver state", handle.Version, handle.State,
			len(handle.DriverState))
	}
	if network != nil {
		task.t.Errorf("unexpected network override %+v", network)
	}
	return handle
}

// startTask launches a driver of the test's own and starts one task with this config.
func startTask(t *testing.T, config map[string]any) (*host, *task) {
	t.Helper()
	requireRoot(t)
	h := launchConfigured(t, stateDirectory(t))
	task := newTask(t, h, config)
	task.start(h)
	return h, task
}

// wait returns the task's exit result.
func (task *task) wait(h *host) *drivers.ExitResult {
	task.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	results, err := h.driver.WaitTask(ctx, task.config.ID)
	must(task.t, err)
	result := <-results
	if result == nil || (result.Err != nil && ctx.Err() != nil) {
		task.t.Fatalf("the task has not ended within %v", patience)
	}
	return result
}

// untilFile waits for a file that the payload makes in the shared alloc directory.
func (task *task) untilFile(name string) []byte {
	task.t.Helper()
	path := filepath.Join(task.config.AllocDir, "alloc", name)
	eventually(task.t, "the payload writes "+name, func() bool {
		info, err := os.Stat(path)
		return err == nil && info.Size() > 0
	})
	content, err := os.ReadFile(path)
	must(task.t, err)
	return content
}

// collector reads a FIFO to its end, as Nomad's log helper does.
type collector struct {
	mutex sync.Mutex
	data  bytes.Buffer
}

func collect(t *testing.T, path string) *collector {
	t.Helper()
	must(t, syscall.Mkfifo(path, 0o600))
	// Open for both directions: the open does not wait, and no EOF comes between two writers.
	fifo, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	must(t, err)
	t.Cleanup(func() { fifo.Close() })
	c := &collector{}
	go func() {
		buffer := make([]byte, 64<<10)
		for {
			n, err := fifo.Read(buffer)
			c.mutex.Lock()
			c.data.Write(buffer[:n])
			c.mutex.Unlock()
			if err == io.EOF || err != nil {
				return
			}
		}
	}()
	return c
}

func (c *collector) text() string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.data.String()
}

// shell is a task that runs a line of shell.
func shell(script string) map[string]any {
	return map[string]any{"command": "/bin/sh", "args": []any{"-c", script}}
}

var sleep600 = map[string]any{"command": "/bin/sleep", "args": []any{"600"}}

// sleeper runs until it is ended and says so in a file when its traps are set.
func sleeper(traps string) map[string]any {
	return shell(traps + ` echo $$ > /alloc/ready; while :; do sleep 0.05; done`)
}

// --- exit --------------------------------------------------------------------------------------

func TestExitCodesAndOutputArriveUnchanged(t *testing.T) {
	requireRoot(t)
	h := launchConfigured(t, stateDirectory(t))
	for _, code := range []int{0, 7, 143} {
		task := newTask(t, h, shell("echo to-out; echo to-err >&2; exit "+strconv.Itoa(code)))
		task.start(h)
		result := task.wait(h)
		if result.ExitCode != code || result.Signal != 0 || result.OOMKilled {
			t.Errorf("exit %d arrived as %+v", code, result)
		}
		eventually(t, "the output", func() bool {
			return strings.Contains(task.stdout.text(), "to-out\n") && strings.Contains(task.stderr.text(), "to-err\n")
		})
		must(t, h.driver.DestroyTask(task.config.ID, false))
	}
}

func TestDeathBySignalIsToldAsSignal(t *testing.T) {
	h, task := startTask(t, shell("kill -KILL $$"))
	if result := task.wait(h); result.Signal != int(syscall.SIGKILL) {
		t.Errorf("SIGKILL arrived as %+v", result)
	}
}

func TestEveryWaiterGetsTheSameResult(t *testing.T) {
	h, task := startTask(t, sleeper(`trap 'exit 5' USR1;`))
	task.untilFile("ready")
	results := make(chan *drivers.ExitResult, 3)
	for range cap(results) {
		go func() { results <- task.wait(h) }()
	}
	must(t, h.driver.SignalTask(task.config.ID, "SIGUSR1"))
	for range cap(results) {
		if result := <-results; result.ExitCode != 5 {
			t.Errorf("a waiter got %+v", result)
		}
	}
	if late := task.wait(h); late.ExitCode != 5 {
		t.Errorf("a late waiter got %+v", late)
	}
}

func TestMissingProgramFailsTheStart(t *testing.T) {
	requireRoot(t)
	h := launchConfigured(t, stateDirectory(t))
	task := newTask(t, h, map[string]any{"command": "/usr/bin/no-such-program"})
	_, _, err := h.driver.StartTask(task.config)
	mustFail(t, err, "no-such-program")
	if structs.IsRecoverable(err) {
		t.Error("Nomad would try it on this node again")
	}
	if _, err := h.driver.InspectTask(task.config.ID); err == nil {
		t.Error("the failed task is known")
	}
}

func TestAFullDiskIsRecoverable(t *testing.T) {
	requireRoot(t)
	stateDir := stateDirectory(t)
	must(t, os.Mkdir(stateDir, 0o700))
	must(t, syscall.Mount("small", stateDir, "tmpfs", 0, "size=256k"))
	t.Cleanup(func() { must(t, syscall.Unmount(stateDir, syscall.MNT_DETACH)) })
	h := launchConfigured(t, stateDir)
	task := newTask(t, h, sleep600)
	_, _, err := h.driver.StartTask(task.config)
	mustFail(t, err, stateDir, "bytes are free")
	if !structs.IsRecoverable(err) {
		t.Errorf("Nomad takes it for final: %v", err)
	}
}

// --- a running task ------------------------------------------------------------------------------

func TestInspectFollowsTheTask(t *testing.T) {
	h, task := startTask(t, sleep600)
	status, err := h.driver.InspectTask(task.config.ID)
	must(t, err)
	if status.ID != task.config.ID || status.Name != "agent" || status.State != drivers.TaskStateRunning {
		t.Errorf("running task: %+v", status)
	}
	if age := time.Since(status.StartedAt); age < 0 || age > time.Minute {
		t.Errorf("started %v ago", age)
	}
	must(t, h.driver.StopTask(task.config.ID, time.Second, "SIGTERM"))
	task.wait(h)
	status, err = h.driver.InspectTask(task.config.ID)
	must(t, err)
	if status.State != drivers.TaskStateExited || status.ExitResult == nil {
		t.Errorf("ended task: %+v", status)
	}
}

func TestSignalReachesTheProgram(t *testing.T) {
	h, task := startTask(t, sleeper(`trap 'exit 3' HUP;`))
	task.untilFile("ready")
	mustFail(t, h.driver.SignalTask(task.config.ID, "SIGNONSENSE"), "SIGNONSENSE")
	must(t, h.driver.SignalTask(task.config.ID, "SIGHUP"))
	if result := task.wait(h); result.ExitCode != 3 {
		t.Errorf("after SIGHUP: %+v", result)
	}
}

func TestStopSendsTheSignalThenKills(t *testing.T) {
	requireRoot(t)
	h := launchConfigured(t, stateDirectory(t))
	polite := newTask(t, h, sleeper(`trap 'exit 4' INT;`))
	polite.start(h)
	polite.untilFile("ready")
	must(t, h.driver.StopTask(polite.config.ID, patience, "SIGINT"))
	if result := polite.wait(h); result.ExitCode != 4 {
		t.Errorf("polite task: %+v", result)
	}
	stubborn := newTask(t, h, sleeper(`trap '' TERM INT; sleep 600 &`))
	stubborn.start(h)
	stubborn.untilFile("ready")
	must(t, h.driver.StopTask(stubborn.config.ID, 200*time.Millisecond, "SIGTERM"))
	if result := stubborn.wait(h); result.Signal != int(syscall.SIGKILL) && result.ExitCode != 137 {
		t.Errorf("stubborn task: %+v", result)
	}
}

func TestStopAndDestroyOfUnknownTasksSucceed(t *testing.T) {
	requireRoot(t)
	h := launchConfigured(t, stateDirectory(t))
	must(t, h.driver.StopTask("nobody/knows/this", time.Second, ""))
	must(t, h.driver.DestroyTask("nobody/knows/this", true))
}

func TestUnknownTasksAreErrorsElsewhere(t *testing.T) {
	requireRoot(t)
	h := launchConfigured(t, stateDirectory(t))
	_, err := h.driver.InspectTask("nobody/knows/this")
	mustFail(t, err, "nobody/knows/this")
	mustFail(t, h.driver.SignalTask("nobody/knows/this", "SIGHUP"), "nobody/knows/this")
	results, err := h.driver.WaitTask(context.Background(), "nobody/knows/this")
	must(t, err)
	mustFail(t, (<-results).Err, "nobody/knows/this")
}

func TestDestroyRefusesARunningTaskUnlessForced(t *testing.T) {
	h, task := startTask(t, sleep600)
	mustFail(t, h.driver.DestroyTask(task.config.ID, false), "running")
	must(t, h.driver.DestroyTask(task.config.ID, true))
	if _, err := h.driver.InspectTask(task.config.ID); err == nil {
		t.Error("the destroyed task is still known")
	}
}

func TestSecondStartOfARunningTaskIsRefused(t *testing.T) {
	h, task := startTask(t, sleep600)
	_, _, err := h.driver.StartTask(task.config)
	mustFail(t, err, "already")
	status, err := h.driver.InspectTask(task.config.ID)
	must(t, err)
	if status.State != drivers.TaskStateRunning {
		t.Errorf("the first task suffered: %+v", status)
	}
}

func TestExecRunsInsideTheTask(t *testing.T) {
	h, task := startTask(t, sleeper(""))
	inside := strings.TrimSpace(string(task.untilFile("ready")))
	result, err := h.driver.ExecTask(task.config.ID, []string{"/bin/sh", "-c",
		"echo \"$NOMAD_TASK_DIR\"; test -d /proc/" + inside + " && echo sees-the-task; id -u; exit 9"}, patience)
	must(t, err)
	if result.ExitResult.ExitCode != 9 {
		t.Errorf("exit %+v", result.ExitResult)
	}
	if got, want := string(result.Stdout), "/local\nsees-the-task\n65534\n"; got != want {
		t.Errorf("exec printed %q, not %q", got, want)
	}
}

func TestStatsCarryMemoryAndCpu(t *testing.T) {
	h, task := startTask(t, sleeper(""))
	task.untilFile("ready")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	samples, err := h.driver.TaskStats(ctx, task.config.ID, 100*time.Millisecond)
	must(t, err)
	for range 2 {
		sample := <-samples
		if sample == nil || sample.ResourceUsage == nil || sample.Timestamp == 0 {
			t.Fatalf("sample %+v", sample)
		}
		memory := sample.ResourceUsage.MemoryStats
		if memory.RSS == 0 && memory.Usage == 0 {
			t.Errorf("no memory in %+v", memory)
		}
	}
}

// --- configuration -----------------------------------------------------------------------------

func TestBadConfigurationIsRefusedByName(t *testing.T) {
	requireRoot(t)
	h := launchConfigured(t, stateDirectory(t))
	agent := func(options map[string]any) map[string]any { return map[string]any{"agent": []any{options}} }
	for name, row := range map[string]struct {
		config map[string]any
		user   string
		words  []string
	}{
		"no program":        {map[string]any{}, "nobody", []string{"agent"}},
		"agent and command": {map[string]any{"agent": []any{map[string]any{"url": "http://127.0.0.1:1/", "name": "n"}}, "command": "/bin/true"}, "nobody", []string{"agent", "command"}},
		"agent without url": {agent(map[string]any{"name": "n"}), "nobody", []string{"url"}},
		"root":              {map[string]any{"command": "/bin/true"}, "root", []string{"allow_root"}},
		"unknown user":      {map[string]any{"command": "/bin/true"}, "no-such-user", []string{"no-such-user"}},
	} {
		t.Run(name, func(t *testing.T) {
			task := newTask(t, h, row.config)
			task.config.User = row.user
			_, _, err := h.driver.StartTask(task.config)
			if err == nil {
				_ = h.driver.DestroyTask(task.config.ID, true)
			}
			mustFail(t, err, row.words...)
		})
	}
}

// --- recovery ----------------------------------------------------------------------------------

// asPersisted is the handle as the agent finds it after its own restart: only exported fields are
// stored, and the driver config is none.
func asPersisted(handle *drivers.TaskHandle) *drivers.TaskHandle {
	kept := handle.Copy()
	config := &drivers.TaskConfig{}
	from, to := reflect.ValueOf(kept.Config).Elem(), reflect.ValueOf(config).Elem()
	for i := range from.NumField() {
		if from.Type().Field(i).IsExported() {
			to.Field(i).Set(from.Field(i))
		}
	}
	kept.Config = config
	return kept
}

func kill(t *testing.T, h *host) {
	t.Helper()
	must(t, syscall.Kill(h.pid(), syscall.SIGKILL))
	eventually(t, "go-plugin sees the death of the plugin", h.client.Exited)
}

func TestTaskSurvivesTheDeathOfThePlugin(t *testing.T) {
	requireRoot(t)
	stateDir := stateDirectory(t)
	first := launchConfigured(t, stateDir)
	task := newTask(t, first, sleeper(`trap 'exit 6' USR2;`))
	handle := task.start(first)
	pid := string(task.untilFile("ready"))
	kill(t, first)

	second := launchConfigured(t, stateDir)
	must(t, second.driver.RecoverTask(asPersisted(handle)))
	must(t, second.driver.RecoverTask(asPersisted(handle))) // asked again after a reattach
	t.Cleanup(func() { _ = second.driver.DestroyTask(task.config.ID, true) })
	status, err := second.driver.InspectTask(task.config.ID)
	must(t, err)
	if status.State != drivers.TaskStateRunning {
		t.Errorf("after recovery: %+v", status)
	}
	if again := string(task.untilFile("ready")); again != pid {
		t.Errorf("the program was started again: pid %s, then %s", pid, again)
	}
	must(t, second.driver.SignalTask(task.config.ID, "SIGUSR2"))
	if result := task.wait(second); result.ExitCode != 6 {
		t.Errorf("exit after recovery: %+v", result)
	}
}

func TestExitWhileThePluginIsDeadIsNotLost(t *testing.T) {
	requireRoot(t)
	stateDir := stateDirectory(t)
	first := launchConfigured(t, stateDir)
	task := newTask(t, first, shell(`echo ready > /alloc/ready; until test -e /alloc/go; do sleep 0.05; done; echo done > /alloc/done; exit 11`))
	handle := task.start(first)
	task.untilFile("ready")
	kill(t, first)
	must(t, os.WriteFile(filepath.Join(task.config.AllocDir, "alloc/go"), nil, 0o666))
	task.untilFile("done")

	second := launchConfigured(t, stateDir)
	must(t, second.driver.RecoverTask(asPersisted(handle)))
	t.Cleanup(func() { _ = second.driver.DestroyTask(task.config.ID, true) })
	if result := task.wait(second); result.ExitCode != 11 {
		t.Errorf("exit while away: %+v", result)
	}
	must(t, second.driver.DestroyTask(task.config.ID, false))
}

func TestRecoveryOfALostTaskIsNoSuccess(t *testing.T) {
	requireRoot(t)
	h := launchConfigured(t, stateDirectory(t))
	task := newTask(t, h, sleep600)
	handle := task.start(h)
	must(t, h.driver.DestroyTask(task.config.ID, true))
	// Refused, or known again as a task that was lost: Nomad restarts it either way.
	if err := h.driver.RecoverTask(asPersisted(handle)); err != nil {
		return
	}
	t.Cleanup(func() { _ = h.driver.DestroyTask(task.config.ID, true) })
	if result := task.wait(h); result.Successful() {
		t.Errorf("a task that is gone ended well: %+v", result)
	}
}

func TestSecondOwnerOfTheStateDirectoryIsRefused(t *testing.T) {
	requireRoot(t)
	stateDir := stateDirectory(t)
	first := launchConfigured(t, stateDir)
	task := newTask(t, first, sleep600)
	task.start(first)
	second := launch(t)
	if err := second.configure(map[string]any{"state_dir": stateDir}); err != nil {
		mustFail(t, err, stateDir, strconv.Itoa(first.pid()))
		return
	}
	// A driver may also accept the configuration (Nomad validates with a second process) and be unhealthy.
	other := newTask(t, second, sleep600)
	_, _, err := second.driver.StartTask(other.config)
	mustFail(t, err, strconv.Itoa(first.pid()))
}
