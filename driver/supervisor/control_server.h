// The supervisor's control socket: answers requests, sends news to whoever watches.
//
// Belongs to the loop's thread. Peers must be root (or the supervisor's own user). A peer that does
// not read is disconnected after kMaxQueuedPackets; it finds everything again with Hello.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "driver/base/event_loop.h"
#include "driver/base/fd.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

class ControlServer {
 public:
  static constexpr size_t kMaxConnections = 48;  // of which sessions hold at most 32
  static constexpr size_t kMaxQueuedPackets = 64;
  static constexpr size_t kMaxKeptEvents = 16;

  // Answers one request; `sequence` is filled in by the server.
  using Handler = std::function<pb::ControlReply(const pb::ControlRequest&)>;
  // For requests that are answered later, with Send: true when it has taken this one.
  using LateHandler = std::function<bool(uint64_t id, const pb::ControlRequest&)>;

  ControlServer(EventLoop* loop, Handler handler) : loop_(loop), handler_(std::move(handler)) {}
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  void SetLateHandler(LateHandler handler) { late_handler_ = std::move(handler); }
  absl::Status Listen(int task_dir_fd);
  // Removes the socket's name; connections stay.
  void StopListening(int task_dir_fd);

  // A connection that came by other means; -> its id for Send().
  uint64_t Adopt(Fd connection);
  void Send(uint64_t id, const pb::ControlReply& news, std::vector<Fd> fds = {});
  // To all watchers. Events that nobody watches are kept for the next one (the latest ones).
  void Publish(const pb::Event& event);
  // To all watchers now, and to any that comes later.
  void PublishExit(const pb::ExitRecord& exit);

  // Calls back when this connection ends.
  void NotifyWhenGone(uint64_t id, std::function<void()> callback);
  // Calls back as soon as no connection is left, maybe at once.
  void NotifyWhenAlone(std::function<void()> callback);

 private:
  struct Outgoing {
    std::string data;
    std::vector<Fd> fds;
  };
  struct Connection {
    Fd fd;
    bool watches = false;
    std::deque<Outgoing> queue;   // packets that the peer had no room for
    bool waits_for_room = false;  // EPOLLOUT is watched
    std::function<void()> when_gone;
  };

  void OnConnectable();
  void OnReady(uint64_t id, uint32_t events);
  void Receive(uint64_t id);
  void Answer(uint64_t id, const pb::ControlRequest& request);
  void StartWatching(uint64_t id);
  void Flush(uint64_t id);
  void Watch(uint64_t id);
  void Disconnect(uint64_t id);

  EventLoop* const loop_;
  const Handler handler_;
  LateHandler late_handler_;
  Fd listener_;
  std::map<uint64_t, Connection> connections_;
  uint64_t next_id_ = 1;
  std::deque<pb::Event> kept_events_;
  std::unique_ptr<pb::ExitRecord> exit_;
  std::function<void()> when_alone_;
};

}  // namespace jenkins_agent
