// The smallest external driver that Nomad's own Go library allows: the peer of `scripts/bench recover`.
// It starts the job's command by os/exec, without a sandbox and without a helper process, and recovers by
// pid. What it lacks (logs, limits, true exit codes after a restart) would only make it slower.
package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	cstructs "github.com/hashicorp/nomad/client/structs"
	"github.com/hashicorp/nomad/plugins"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/shared/hclspec"
	"golang.org/x/sys/unix"
)

// The agent's configuration and the job's, in the names of the driver that it is compared with.
type pluginConfig struct {
	StateDir string `codec:"state_dir"`
}

type taskConfig struct {
	Command string   `codec:"command"`
	Args    []string `codec:"args"`
}

// What Nomad keeps for RecoverTask.
type taskState struct {
	Pid       int
	StartedAt time.Time
}

type task struct {
	config *drivers.TaskConfig
	state  taskState
	ended  chan struct{}
}

type trivialDriver struct {
	drivers.DriverSignalTaskNotSupported
	drivers.DriverExecTaskNotSupported

	mutex sync.Mutex
	tasks map[string]*task
}

func main() {
	plugins.Serve(func(hclog.Logger) any { return &trivialDriver{tasks: map[string]*task{}} })
}

func (d *trivialDriver) PluginInfo() (*base.PluginInfoResponse, error) {
	return &base.PluginInfoResponse{Type: base.PluginTypeDriver, Name: "trivial", PluginVersion: "0",
		PluginApiVersions: []string{drivers.ApiVersion010}}, nil
}

func (d *trivialDriver) ConfigSchema() (*hclspec.Spec, error) {
	return hclspec.NewObject(map[string]*hclspec.Spec{
		"state_dir": hclspec.NewAttr("state_dir", "string", false)}), nil
}

func (d *trivialDriver) SetConfig(config *base.Config) error {
	return base.MsgPackDecode(config.PluginConfig, &pluginConfig{})
}

func (d *trivialDriver) TaskConfigSchema() (*hclspec.Spec, error) {
	return hclspec.NewObject(map[string]*hclspec.Spec{
		"command": hclspec.NewAttr("command", "string", true),
		"args":    hclspec.NewAttr("args", "list(string)", false)}), nil
}

func (d *trivialDriver) Capabilities() (*drivers.Capabilities, error) {
	return &drivers.Capabilities{}, nil
}

func (d *trivialDriver) Fingerprint(ctx context.Context) (<-chan *drivers.Fingerprint, error) {
	found := make(chan *drivers.Fingerprint, 1)
	found <- &drivers.Fingerprint{Health: drivers.HealthStateHealthy}
	return found, nil
}

func (d *trivialDriver) TaskEvents(context.Context) (<-chan *drivers.TaskEvent, error) {
	return make(chan *drivers.TaskEvent), nil
}

func (d *trivialDriver) TaskStats(context.Context, string, time.Duration) (<-chan *cstructs.TaskResourceUsage, error) {
	return nil, errors.New("no statistics")
}

func (d *trivialDriver) StartTask(config *drivers.TaskConfig) (*drivers.TaskHandle, *drivers.DriverNetwork, error) {
	var wanted taskConfig
	if err := config.DecodeDriverConfig(&wanted); err != nil {
		return nil, nil, err
	}
	command := exec.Command(wanted.Command, wanted.Args...)
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return nil, nil, err
	}
	started := d.add(config, taskState{Pid: command.Process.Pid, StartedAt: time.Now()})
	go func() {
		_ = command.Wait() // the exit code is not asked for
		close(started.ended)
	}()
	handle := drivers.NewTaskHandle(1)
	handle.Config = config
	handle.State = drivers.TaskStateRunning
	return handle, nil, handle.SetDriverState(&started.state)
}

func (d *trivialDriver) RecoverTask(handle *drivers.TaskHandle) error {
	var state taskState
	if err := handle.GetDriverState(&state); err != nil {
		return err
	}
	// No child of ours any more: its end is told by a pidfd, in the runtime's own poller.
	pidfd, err := unix.PidfdOpen(state.Pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return err
	}
	process := os.NewFile(uintptr(pidfd), "pidfd")
	poller, err := process.SyscallConn()
	if err != nil {
		return err
	}
	recovered := d.add(handle.Config, state)
	go func() {
		_ = poller.Read(hasEnded)
		_ = process.Close()
		close(recovered.ended)
	}()
	return nil
}

func hasEnded(pidfd uintptr) bool {
	ready, _ := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0)
	return ready > 0
}

func (d *trivialDriver) WaitTask(ctx context.Context, id string) (<-chan *drivers.ExitResult, error) {
	found, err := d.find(id)
	if err != nil {
		return nil, err
	}
	result := make(chan *drivers.ExitResult, 1)
	go func() {
		select {
		case <-found.ended:
			result <- &drivers.ExitResult{}
		case <-ctx.Done():
			result <- &drivers.ExitResult{Err: ctx.Err()}
		}
	}()
	return result, nil
}

func (d *trivialDriver) StopTask(id string, _ time.Duration, _ string) error {
	found, err := d.find(id)
	if err != nil {
		return err
	}
	return syscall.Kill(found.state.Pid, syscall.SIGKILL)
}

func (d *trivialDriver) DestroyTask(id string, _ bool) error {
	if err := d.StopTask(id, 0, ""); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	delete(d.tasks, id)
	return nil
}

func (d *trivialDriver) InspectTask(id string) (*drivers.TaskStatus, error) {
	found, err := d.find(id)
	if err != nil {
		return nil, err
	}
	return &drivers.TaskStatus{ID: id, Name: found.config.Name, State: drivers.TaskStateRunning,
		StartedAt: found.state.StartedAt, ExitResult: &drivers.ExitResult{},
		DriverAttributes: map[string]string{"pid": strconv.Itoa(found.state.Pid)}}, nil
}

func (d *trivialDriver) add(config *drivers.TaskConfig, state taskState) *task {
	added := &task{config: config, state: state, ended: make(chan struct{})}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.tasks[config.ID] = added
	return added
}

func (d *trivialDriver) find(id string) (*task, error) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if found, known := d.tasks[id]; known {
		return found, nil
	}
	return nil, drivers.ErrTaskNotFound
}
