// One run of `tools preflight`: which leg of an agent's way to its controller fails, in one line.
// It looks from where the agent is: the task's network namespace, its resolver.
//
// Lives on the event loop's thread, destructor included.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "driver/base/event_loop.h"
#include "driver/task/tools_worker.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// `agent_port`: HOST:PORT that the agent was seen to try, "" for none yet. `on_end` gets the
// sentence, or "" when the worker failed, and may destroy the worker, which is done then. It takes
// a minute at most for each url.
absl::StatusOr<std::unique_ptr<ToolsWorker>> StartPreflight(
    EventLoop* loop, const JarWorkerProgram& program, const pb::TaskRecord& record,
    const pb::TaskStatus& status, const std::string& agent_port,
    std::function<void(const std::string&)> on_end);

}  // namespace jenkins_agent
