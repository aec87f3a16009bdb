// One output stream of the payload: from its pipe to Nomad's log FIFO (or a file), or to rotated
// files of our own, through a reader of ours that follows the agent's phases.
//
// A slow or absent reader of the FIFO slows the payload down, for kPatience at most: then bytes are
// dropped and one marker line says how many. Files of our own never slow it down (log_file.h).
// Belongs to the loop's thread.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "driver/base/event_loop.h"
#include "driver/base/fd.h"
#include "driver/supervisor/log_file.h"

namespace jenkins_agent {

class Output {
 public:
  static constexpr std::chrono::seconds kPatience{30};
  static constexpr std::chrono::milliseconds kReopenDelay{50};
  static constexpr size_t kChunkBytes = 64 << 10;
  // Read at most that much at the end of a payload: whoever inherited the pipe may write for ever.
  static constexpr size_t kMaxDrainBytes = 1 << 20;

  // Dropped bytes are told at once when it begins, then in portions of this size, and at the end.
  static constexpr uint64_t kDroppedPortion = 1 << 20;

  using OnBytes = std::function<void(absl::string_view)>;
  using OnDropped = std::function<void(uint64_t bytes)>;  // since it was called last

  // `patience` is shortened by tests. SIGPIPE must be ignored.
  Output(EventLoop* loop, std::string sink_path, OnBytes on_bytes,
         EventLoop::Clock::duration patience = kPatience)
      : loop_(loop),
        sink_path_(std::move(sink_path)),
        on_bytes_(std::move(on_bytes)),
        patience_limit_(patience) {}
  Output(EventLoop* loop, LogFileSet files, OnBytes on_bytes)
      : Output(loop, std::string(), std::move(on_bytes)) {
    files_.emplace(std::move(files));
  }
  ~Output() { Close(); }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  void SetOnDropped(OnDropped on_dropped) { on_dropped_ = std::move(on_dropped); }
  // Opens the sink. A FIFO without a reader is no error, it is tried again; a missing file is one.
  absl::Status OpenSink();
  // Starts to copy. `on_end` is called once, when every writer is gone and the sink has everything.
  absl::Status Start(Fd source, std::function<void()> on_end);
  // After Start. While held back, only Drain() reads; the pipe keeps what comes.
  void HoldBack(bool held_back);
  // Takes what is in the pipe now, so that on_bytes has seen a dead payload's last words.
  void Drain();
  bool ended() const { return ended_; }
  // Its sink does not take what comes.
  bool stalled() const { return stalled_; }
  void Close();

 private:
  void WatchSource();  // unless it has to wait
  void OnReadable();
  size_t ReadOnce();  // -> bytes read; 0: nothing there, or the end (source_ closed)
  void Take(absl::string_view bytes);
  void WritePending();
  void OnSinkGone();
  void Stall(bool sink_is_open);
  void Reopen();
  void OnPatienceOver();
  void OnFlushed();
  void CountDropped(uint64_t bytes);
  void TellDropped();
  void MaybeEnd();

  EventLoop* const loop_;
  const std::string sink_path_;
  const OnBytes on_bytes_;
  const EventLoop::Clock::duration patience_limit_;
  std::function<void()> on_end_;
  OnDropped on_dropped_;
  Fd source_;
  Fd sink_;
  std::optional<RotatedFile> files_;  // then there is no sink_ and nothing ever stalls
  std::string pending_;               // read, not yet written
  bool stalled_ = false;   // waiting for the sink; the source is not watched unless dropping_
  bool dropping_ = false;  // patience is over
  bool held_back_ = false;
  uint64_t dropped_bytes_ = 0;   // that no marker tells yet
  uint64_t untold_dropped_ = 0;  // of these and the files', what on_dropped_ was not told
  bool told_dropped_ = false;
  bool ended_ = false;
  EventLoop::TimerId patience_ = 0;
  EventLoop::TimerId reopen_ = 0;
};

}  // namespace jenkins_agent
