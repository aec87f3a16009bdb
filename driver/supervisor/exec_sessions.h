// Exec sessions of one task, on the supervisor's side: who asked for which, and what pid 1 says of
// them. Bytes never come here: the descriptors go to the one who asked.
//
// A session is bound to the control connection that asked for it and ends with it
// (proto/supervisor.proto, Exec), so it dies with its client, be that a person or the plugin.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/status.h"
#include "driver/base/event_loop.h"
#include "driver/base/fd.h"
#include "driver/supervisor/control_server.h"
#include "driver/supervisor/entrances.h"
#include "driver/supervisor/init_protocol.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

class ExecSessions {
 public:
  static constexpr size_t kMaxSessions = 32;
  // Processes of the task's user can hold the child back before its exec, for ever.
  static constexpr std::chrono::seconds kStartTimeout{10};

  // `init_socket`: to pid 1. All four outlive this object.
  ExecSessions(EventLoop* loop, ControlServer* server, Entrances* entrances, int init_socket)
      : loop_(loop), server_(server), entrances_(entrances), init_socket_(init_socket) {}
  ExecSessions(const ExecSessions&) = delete;
  ExecSessions& operator=(const ExecSessions&) = delete;

  // Answers the request, now or later. `task`: whose environment and work directory it gets.
  void Start(uint64_t connection, const pb::ControlRequest& request, const pb::ProgramSpec& task);
  void Refuse(uint64_t connection, const pb::ControlRequest& request, const absl::Status& error);
  void Release(uint64_t connection, const pb::ControlRequest& request);

  // kSessionStarted, kSessionFailed, kSessionExited.
  void OnReport(InitReport report);
  // Session ids of those that run, as the sandbox numbers them.
  std::vector<pid_t> SessionIds() const;
  // pid 1 is dead and all processes with it.
  void OnTaskEnded();

 private:
  struct Session {
    uint64_t connection = 0;
    uint64_t sequence = 0;         // of the request, until it is answered
    EventLoop::TimerId timer = 0;  // until it is answered
    pid_t leader = 0;              // as the sandbox numbers it; 0 before it has started
    bool ended = false;
  };

  std::map<uint32_t, Session>::iterator Find(uint64_t connection);
  absl::Status CheckRoom(uint64_t connection);
  void Ask(const InitRequest& start);
  void Answer(uint32_t id, const absl::Status& status, std::vector<Fd> stdio);
  void TellExit(uint32_t id, int wait_status);
  void OnGone(uint32_t id);
  void Tell(InitRequest::Kind kind, uint32_t id);

  EventLoop* const loop_;
  ControlServer* const server_;
  Entrances* const entrances_;
  const int init_socket_;
  std::map<uint32_t, Session> sessions_;
  uint32_t next_id_ = 1;
};

}  // namespace jenkins_agent
