// One run of a worker of the tools program: a request on its standard input, JSON lines back.
//
// Workers are processes of their own because they talk to whatever a job names. Closing its
// standard input ends one, so it never outlives the plugin. Lives on the event loop's thread,
// destructor included.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "driver/base/event_loop.h"
#include "driver/base/fd.h"
#include "driver/base/subprocess.h"

namespace jenkins_agent {

// The tools program, in memory, and where jars are kept.
struct JarWorkerProgram {
  Fd executable;          // sealed memfd
  std::string cache_dir;  // <state_dir>/cache/agent
};

class ToolsWorker {
 public:
  // Called on the loop's thread, where they may destroy the worker.
  struct Handlers {
    // True: that was the last one of interest.
    std::function<bool(const nlohmann::json&)> on_line;
    // Once, instead of further lines: it ended, or says what nobody can read.
    std::function<void(const std::string& error)> on_failed;
  };

  // `worker`: of the tools program's commands; names the process in errors too.
  static absl::StatusOr<std::unique_ptr<ToolsWorker>> Start(EventLoop* loop,
                                                            const JarWorkerProgram& program,
                                                            const std::string& worker,
                                                            const nlohmann::json& request,
                                                            Handlers handlers);
  ~ToolsWorker();
  ToolsWorker(const ToolsWorker&) = delete;
  ToolsWorker& operator=(const ToolsWorker&) = delete;

 private:
  ToolsWorker(EventLoop* loop, std::string name, Subprocess process, Fd input, Handlers handlers)
      : loop_(loop),
        name_(std::move(name)),
        process_(std::move(process)),
        input_(std::move(input)),
        handlers_(std::move(handlers)) {}
  void OnOutput();
  void Fail(const std::string& error);

  EventLoop* const loop_;
  const std::string name_;
  Subprocess process_;
  Fd input_;  // its standard input; closed = told to end
  Handlers handlers_;
  std::string partial_line_;
};

// "" for what is missing or no string.
std::string TextOf(const nlohmann::json& object, const char* key);

}  // namespace jenkins_agent
