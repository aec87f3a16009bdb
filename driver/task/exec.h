// One program run beside a task's payload: `nomad alloc exec`, script checks.
//
// The supervisor starts it and tells its end; bytes go straight between the descriptors that it
// handed over and the handlers here, on the event loop, without a thread. Nothing is read faster
// than the handlers ask for it. The connection to the supervisor is the session: when this object
// or the plugin goes away before the end, all processes of the session are killed.
#pragma once

#include <sys/ioctl.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/base/event_loop.h"
#include "driver/base/fd.h"
#include "driver/task/task.h"

namespace jenkins_agent {

class ExecSession : public std::enable_shared_from_this<ExecSession> {
 public:
  static constexpr size_t kChunkBytes = 32 << 10;
  // What a terminal's leader left behind to be read; its background children may write for ever.
  static constexpr size_t kMaxDrainBytes = 256 << 10;
  static constexpr std::chrono::seconds kStartTimeout{15};  // the supervisor's own is 10 s

  // kStdout only with a terminal, or merged.
  enum Output : int { kStdout = 0, kStderr = 1 };
  struct Options {
    std::vector<std::string> argv;
    bool tty = false;
    bool merge_stderr = false;             // without a terminal: both are one, in order
    std::chrono::milliseconds timeout{0};  // 0: none; else the session is killed after it
  };
  // Called on the loop's thread.
  struct Handlers {
    // The next bytes. No more of this output before MoreOutput().
    std::function<void(Output, std::string)> on_output;
    // What Write() was given has been taken, or nobody will take it.
    std::function<void()> on_input_taken;
    // The last call. Wait status as of waitpid(2), or why there is none. Without a terminal all
    // output has been seen; with one, what was there when the leader ended.
    std::function<void(absl::StatusOr<int>)> on_end;
  };

  // FailedPrecondition when the task has ended.
  static absl::StatusOr<std::shared_ptr<ExecSession>> Connect(EventLoop* loop, const Task& task);
  ExecSession(const ExecSession&) = delete;
  ExecSession& operator=(const ExecSession&) = delete;

  // Once. The rest after it, from any thread; after the end they do nothing.
  void Start(const Options& options, Handlers handlers);
  void MoreOutput(Output output);
  // One at a time: the next after on_input_taken.
  void Write(std::string bytes);
  // With a terminal: its end-of-file character.
  void CloseInput();
  void Resize(int rows, int columns);
  // Kills the session; no handler is called any more, except one that is running.
  void Cancel();

 private:
  struct Source {
    Fd fd;
    bool wanted = true;  // the handler has room for more
    bool ended = false;
  };

  ExecSession(EventLoop* loop, Fd connection) : loop_(loop), connection_(std::move(connection)) {}

  // All on the loop's thread.
  absl::Status Ask(const Options& options);
  void OnMessage();
  absl::Status Begin(std::vector<Fd> fds);
  void WatchOutput(Output output);
  void ReadOutput(Output output);
  void EndOutput(Output output);
  void FlushInput();
  void DropInput();
  void InputTaken();
  void ApplySize();
  void OnExit(int wait_status);
  void FinishWhenDone();
  void End(absl::StatusOr<int> result);
  void Close();

  EventLoop* const loop_;
  Fd connection_;
  Handlers handlers_;
  bool tty_ = false;
  bool merge_stderr_ = false;
  bool begun_ = false;
  std::array<Source, 2> sources_;
  Fd input_;
  bool input_dropped_ = false;  // the reader is gone, or the input was closed
  bool writing_ = false;        // on_input_taken is due
  bool close_input_ = false;
  bool line_is_open_ = false;  // the last byte written was no newline
  std::string pending_input_;
  std::optional<winsize> size_;
  std::optional<int> wait_status_;
  size_t drained_bytes_ = 0;
  EventLoop::TimerId start_timer_ = 0;
  EventLoop::TimerId timer_ = 0;
};

}  // namespace jenkins_agent
