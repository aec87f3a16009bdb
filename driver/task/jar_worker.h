// One run of `tools agent-jar`: finds or fetches a task's agent.jar and looks into it; or of `tools
// controller-check`: asks its controller once. It works without privileges, in the task's network
// namespace. `agent-jar` waits for a controller that is not up yet.
//
// Lives on the event loop's thread, destructor included.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "driver/base/event_loop.h"
#include "driver/task/tools_worker.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

class JarWorker {
 public:
  struct Request {
    std::vector<std::string> urls;  // of the controller, in order
    std::string name;               // the agent's, for the controller's log
    std::string ca_file;            // PEM file, path inside the sandbox; "": none
    bool web_socket = false;        // the controller needs no TCP port for agents
    std::string network_namespace;  // path; "": the host's
    std::string resolv_conf;        // path; "": the host's
    std::string file;               // a jar that the job names, path inside the sandbox; "": fetch
    int root_pid = 0;               // process whose root `file` and `ca_file` are looked up in
    std::string job;                // namespace and id: jars over plain http are kept for it alone
    // Only whether the controller would take an agent now: on_ready, without a jar, or on_failed.
    bool only_ask = false;
  };
  // Called on the loop's thread; exactly one of on_ready and on_failed, once.
  struct Handlers {
    std::function<void(const std::string& reason)> on_waiting;
    std::function<void(pb::JarInfo jar, const std::string& host_path)> on_ready;
    std::function<void(const std::string& error)> on_failed;
  };

  static absl::StatusOr<std::unique_ptr<JarWorker>> Start(EventLoop* loop,
                                                          const JarWorkerProgram& program,
                                                          const Request& request,
                                                          Handlers handlers);
  JarWorker(const JarWorker&) = delete;
  JarWorker& operator=(const JarWorker&) = delete;

 private:
  explicit JarWorker(Handlers handlers) : handlers_(std::move(handlers)) {}
  // True when that was the last word; `this` may be gone then.
  bool OnLine(const nlohmann::json& line);
  void Fail(const std::string& error);

  Handlers handlers_;
  bool finished_ = false;
  std::unique_ptr<ToolsWorker> worker_;
};

}  // namespace jenkins_agent
