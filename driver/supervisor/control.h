// One control connection to a supervisor, on the plugin's event loop.
//
// Create, Call and the destructor may be used from any thread; handlers and callbacks run on the
// loop's thread, and must not block it. The loop must run, and outlive the connection.
#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "driver/base/event_loop.h"
#include "driver/base/fd.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

class Control {
 public:
  struct Handlers {
    std::function<void(const pb::Event&)> on_event;
    std::function<void(const pb::ExitRecord&)> on_exit;
    std::function<void()> on_lost;  // once: the supervisor is gone, or does not speak our language
  };
  using Callback = std::function<void(absl::StatusOr<pb::ControlReply>)>;

  // `connection` from Spawner::Spawn (after AwaitStart) or ConnectToSupervisor. Events and the exit
  // come after Call(Hello{watch}).
  static std::unique_ptr<Control> Create(EventLoop* loop, Fd connection, Handlers handlers);
  // No handler runs any more once the destructor was called on the loop's thread; called on another
  // one, a handler may be running still. Callbacks that are due get Cancelled.
  ~Control();
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  // `callback` runs exactly once: with the reply, the reply's error, DeadlineExceeded, Unavailable
  // (connection lost) or Cancelled.
  void Call(pb::ControlRequest request, Callback callback, std::chrono::milliseconds timeout);

 private:
  class Connection;
  explicit Control(EventLoop* loop, std::shared_ptr<Connection> connection)
      : loop_(loop), connection_(std::move(connection)) {}

  EventLoop* const loop_;
  const std::shared_ptr<Connection> connection_;
};

}  // namespace jenkins_agent
