package nomad

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"
	dproto "github.com/hashicorp/nomad/plugins/drivers/proto"
)

// The cases of ExecTaskStreamingConformanceTests (plugins/drivers/testutils), whose harness wraps drivers
// written in Go only: commands, input and expected bytes are Nomad's own.
var conformance = []struct {
	name, command  string
	tty            bool
	stdin          string
	stdout, stderr string // stderr: a regular expression
	exit           int
}{
	{"notty basic", "echo hello stdout; echo hello stderr >&2; exit 43", false, "",
		"hello stdout\n", "hello stderr\n", 43},
	{"notty streaming", "for n in 1 2 3; do echo $n; sleep 1; done", false, "", "1\n2\n3\n", "", 0},
	{"notty stty check", "stty size", false, "", "",
		"stty: .?standard input.?: Inappropriate ioctl for device\n", 1},
	{"notty stdin passing", "echo hello from command; head -n1", false, "hello from stdin\n",
		"hello from command\nhello from stdin\n", "", 0},
	{"tty basic", "echo hello stdout; echo hello stderr >&2; exit 43", true, "",
		"hello stdout\r\nhello stderr\r\n", "", 43},
	{"tty streaming", "for n in 1 2 3; do echo $n; sleep 1; done", true, "", "1\r\n2\r\n3\r\n", "", 0},
	{"tty stty check", "sleep 1; stty size", true, "", "100 100\r\n", "", 0},
	{"tty stdin passing", "head -n1", true, "hello from stdin\n",
		"hello from stdin\r\nhello from stdin\r\n", "", 0},
	{"tty children processes", "(( sleep 3; echo from background ) & ); echo from main; exec sleep 1", true, "",
		"from main\r\n", "", 0},
}

// execStream is the agent's end of one `nomad alloc exec`.
type execStream struct {
	mutex          sync.Mutex
	input          []*drivers.ExecTaskStreamingRequestMsg
	stdout, stderr strings.Builder
	closes         []string
	exit           int
	signal         int
	after          func(stdout string) // called when stdout has grown
}

func newExecStream(tty bool, stdin string) *execStream {
	stream := &execStream{exit: -2}
	add := func(message *drivers.ExecTaskStreamingRequestMsg) { stream.input = append(stream.input, message) }
	if tty { // two sizes: the last one wins
		add(&drivers.ExecTaskStreamingRequestMsg{
			TtySize: &dproto.ExecTaskStreamingRequest_TerminalSize{Height: 50, Width: 40}})
		add(&drivers.ExecTaskStreamingRequestMsg{
			TtySize: &dproto.ExecTaskStreamingRequest_TerminalSize{Height: 100, Width: 100}})
	}
	add(&drivers.ExecTaskStreamingRequestMsg{}) // a heartbeat
	add(&drivers.ExecTaskStreamingRequestMsg{Stdin: &dproto.ExecTaskStreamingIOOperation{Data: []byte(stdin)}})
	if !tty {
		add(&drivers.ExecTaskStreamingRequestMsg{Stdin: &dproto.ExecTaskStreamingIOOperation{Close: true}})
	}
	return stream
}

func (s *execStream) Recv() (*drivers.ExecTaskStreamingRequestMsg, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if len(s.input) == 0 {
		return nil, io.EOF
	}
	message := s.input[0]
	s.input = s.input[1:]
	return message, nil
}

func (s *execStream) Send(m *drivers.ExecTaskStreamingResponseMsg) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if m.Stdout != nil {
		s.stdout.Write(m.Stdout.Data)
		if m.Stdout.Close {
			s.closes = append(s.closes, "stdout")
		}
		if s.after != nil {
			s.after(s.stdout.String())
		}
	}
	if m.Stderr != nil {
		s.stderr.Write(m.Stderr.Data)
		if m.Stderr.Close {
			s.closes = append(s.closes, "stderr")
		}
	}
	if m.Exited {
		s.closes = append(s.closes, "exited")
		s.exit, s.signal = int(m.Result.ExitCode), int(m.Result.Signal)
	}
	return nil
}

func visible(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// running tells whether a process has this in its command line (arguments end in NUL).
func running(arguments string) bool {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		if line, err := os.ReadFile(file); err == nil && strings.Contains(string(line), arguments) {
			return true
		}
	}
	return false
}

func (task *task) exec(ctx context.Context, h *host, stream *execStream, tty bool, command ...string) error {
	return h.driver.(drivers.ExecTaskStreamingRawDriver).ExecTaskStreamingRaw(ctx, task.config.ID, command, tty, stream)
}

func TestExecStreamingConformance(t *testing.T) {
	h, task := startTask(t, sleeper(""))
	for _, c := range conformance {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // sessions of one task run beside each other
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			stream := newExecStream(c.tty, c.stdin)
			must(t, task.exec(ctx, h, stream, c.tty, "/bin/sh", "-c", c.command))
			if stream.exit != c.exit {
				t.Errorf("exit code %d, not %d", stream.exit, c.exit)
			}
			if got := stream.stdout.String(); got != c.stdout {
				t.Errorf("stdout %q, not %q", got, c.stdout)
			}
			if got := stream.stderr.String(); !regexp.MustCompile("^" + c.stderr + "$").MatchString(got) {
				t.Errorf("stderr %q, not %q", got, c.stderr)
			}
			if got := strings.Join(stream.closes, " "); got != "stdout stderr exited" {
				t.Errorf("the end was told as %q", got)
			}
		})
	}
}

// The second half of the conformance tests, without its look at /proc/self/cgroup: a task of this driver
// has a cgroup namespace and sees "/".
func TestExecSeesTheTasksFilesOnly(t *testing.T) {
	h, task := startTask(t, sleeper(""))
	made, err := h.driver.ExecTask(task.config.ID, []string{"/bin/sh", "-c",
		"FILE=$(mktemp); echo $FILE; echo hello from the other side >$FILE"}, patience)
	must(t, err)
	path := strings.TrimSpace(string(made.Stdout))
	if matched, _ := regexp.MatchString("^/tmp/", path); !matched {
		t.Fatalf("mktemp said %q", path)
	}
	if visible(path) {
		t.Errorf("%s of the task is visible on the host", path)
	}
	read, err := h.driver.ExecTask(task.config.ID, []string{"cat", path}, patience)
	must(t, err)
	if got := string(read.Stdout); got != "hello from the other side\n" {
		t.Errorf("the next session read %q", got)
	}
}

func TestExecTaskIsBoundInTimeAndOutput(t *testing.T) {
	h, task := startTask(t, sleeper(""))
	_, err := h.driver.ExecTask(task.config.ID, []string{"/bin/sh", "-c", "sleep 7654 & sleep 7654"},
		300*time.Millisecond)
	mustFail(t, err, "DeadlineExceeded", "300 ms")
	eventually(t, "the command to be killed", func() bool { return !running("sleep\x007654") })
	long, err := h.driver.ExecTask(task.config.ID, []string{"/bin/sh", "-c",
		"head -c 1000000 /dev/zero | tr '\\0' x; echo end >&2"}, patience)
	must(t, err)
	if len(long.Stdout) != 4096 || !strings.HasSuffix(string(long.Stdout), "xend\n") {
		t.Errorf("%d bytes that end in %q", len(long.Stdout), long.Stdout[max(0, len(long.Stdout)-8):])
	}
	_, err = h.driver.ExecTask(task.config.ID, []string{"/no/such"}, patience)
	mustFail(t, err, "exec /no/such: No such file or directory")
	_, err = h.driver.ExecTask(task.config.ID, nil, patience)
	mustFail(t, err, "the command is empty")
	must(t, h.driver.StopTask(task.config.ID, patience, "SIGKILL"))
	_, err = h.driver.ExecTask(task.config.ID, []string{"true"}, patience)
	mustFail(t, err, "the task has ended")
}

func TestExecStreamingEndsWithItsClient(t *testing.T) {
	h, task := startTask(t, sleeper(""))
	for number, tty := range map[int]bool{8701: false, 8702: true} {
		ctx, cancel := context.WithCancel(context.Background())
		stream := newExecStream(tty, "")
		stream.after = func(stdout string) {
			if strings.Contains(stdout, "on") {
				cancel()
			}
		}
		err := task.exec(ctx, h, stream, tty, "/bin/sh", "-c",
			fmt.Sprintf("sleep %d & trap '' HUP TERM; echo on; sleep %d", number, number))
		cancel()
		mustFail(t, err, "cancel")
		eventually(t, "the session to be killed", func() bool { return !running(fmt.Sprintf("sleep\x00%d", number)) })
	}
	status, err := h.driver.InspectTask(task.config.ID)
	must(t, err)
	if status.State != drivers.TaskStateRunning {
		t.Errorf("the task suffered: %+v", status)
	}
}

func TestExecStreamingEndsWithTheTask(t *testing.T) {
	h, task := startTask(t, sleeper(""))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream := newExecStream(true, "")
	stream.after = func(stdout string) {
		if strings.Contains(stdout, "on") {
			go func() { _ = h.driver.StopTask(task.config.ID, patience, "SIGKILL") }()
		}
	}
	must(t, task.exec(ctx, h, stream, true, "/bin/sh", "-c", "echo on; sleep 1000"))
	if stream.exit != 137 || stream.signal != 9 {
		t.Errorf("exit code %d, signal %d", stream.exit, stream.signal)
	}
}

// More than every buffer on the way holds, in both directions, so flow control must hold and let go.
func TestExecStreamingCarriesMuch(t *testing.T) {
	h, task := startTask(t, sleeper(""))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	const blocks, block = 256, 32 << 10
	stream := &execStream{}
	for i := 0; i < blocks; i++ {
		stream.input = append(stream.input, &drivers.ExecTaskStreamingRequestMsg{
			Stdin: &dproto.ExecTaskStreamingIOOperation{Data: []byte(strings.Repeat("abcdefg\n", block/8))}})
	}
	stream.input = append(stream.input, &drivers.ExecTaskStreamingRequestMsg{
		Stdin: &dproto.ExecTaskStreamingIOOperation{Close: true}})
	must(t, task.exec(ctx, h, stream, false, "tee", "/dev/stderr"))
	want := strings.Repeat("abcdefg\n", blocks*block/8)
	if stream.stdout.String() != want || stream.stderr.String() != want || stream.exit != 0 {
		t.Errorf("exit %d, %d and %d bytes of %d, or other ones", stream.exit, stream.stdout.Len(),
			stream.stderr.Len(), len(want))
	}
}
