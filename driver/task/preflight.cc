#include "driver/task/preflight.h"

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "driver/base/log.h"

namespace jenkins_agent {

using nlohmann::json;

absl::StatusOr<std::unique_ptr<ToolsWorker>> StartPreflight(
    EventLoop* loop, const JarWorkerProgram& program, const pb::TaskRecord& record,
    const pb::TaskStatus& status, const std::string& agent_port,
    std::function<void(const std::string&)> on_end) {
  const json request = {
      {"urls", std::vector<std::string>(status.agent_urls().begin(), status.agent_urls().end())},
      {"name", status.agent_name()},
      {"ca_file", status.agent_ca_file()},
      {"web_socket", status.web_socket()},
      {"agent_port", agent_port},
      {"network_namespace", record.network_namespace()},
      {"resolv_conf", record.resolv_conf()},
      {"root_pid", status.init_pid()}};
  ToolsWorker::Handlers handlers;
  handlers.on_line = [on_end](const json& line) {
    on_end(TextOf(line, "line"));
    return true;
  };
  handlers.on_failed = [on_end, id = record.task_id()](const std::string& error) {
    Log(LogLevel::kWarn, "pre-flight", {{"task_id", id}, {"error", error}});
    on_end("");
  };
  return ToolsWorker::Start(loop, program, "preflight", request, std::move(handlers));
}

}  // namespace jenkins_agent
