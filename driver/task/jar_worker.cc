#include "driver/task/jar_worker.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

using nlohmann::json;

json RequestFor(const JarWorkerProgram& program, const JarWorker::Request& request) {
  return {{"urls", request.urls},
          {"name", request.name},
          {"ca_file", request.ca_file},
          {"web_socket", request.web_socket},
          {"network_namespace", request.network_namespace},
          {"resolv_conf", request.resolv_conf},
          {"cache_dir", program.cache_dir},
          {"file", request.file},
          {"root_pid", request.root_pid},
          {"job", request.job}};
}

pb::JarInfo JarInfoOf(const json& jar) {
  pb::JarInfo info;
  info.set_path(TextOf(jar, "path"));
  info.set_main_class(TextOf(jar, "main_class"));
  info.set_version(TextOf(jar, "version"));
  info.set_sha256(TextOf(jar, "sha256"));
  pb::LauncherGeneration generation = pb::LAUNCHER_UNKNOWN;
  pb::LauncherGeneration_Parse(TextOf(jar, "generation"), &generation);
  info.set_generation(generation);
  if (const auto it = jar.find("min_java"); it != jar.end() && it->is_number_unsigned()) {
    info.set_min_java(it->get<uint32_t>());
  }
  info.set_runs_as_agent(jar.value("runs_as_agent", json()) == true);
  return info;
}

}  // namespace

absl::StatusOr<std::unique_ptr<JarWorker>> JarWorker::Start(EventLoop* loop,
                                                            const JarWorkerProgram& program,
                                                            const Request& request,
                                                            Handlers handlers) {
  std::unique_ptr<JarWorker> worker(new JarWorker(std::move(handlers)));
  ASSIGN_OR_RETURN(
      worker->worker_,
      ToolsWorker::Start(loop, program, request.only_ask ? "controller-check" : "agent-jar",
                         RequestFor(program, request),
                         {[raw = worker.get()](const json& line) { return raw->OnLine(line); },
                          [raw = worker.get()](const std::string& error) { raw->Fail(error); }}));
  return worker;
}

bool JarWorker::OnLine(const json& line) {
  const std::string state = TextOf(line, "state");
  if (state == "waiting") {
    handlers_.on_waiting(TextOf(line, "reason"));
  } else if (state == "failed") {
    Fail(TextOf(line, "error"));
    return true;
  } else if (state == "ready" && !finished_) {
    finished_ = true;
    pb::JarInfo jar = JarInfoOf(line.value("jar", json::object()));
    const auto ready = std::move(handlers_.on_ready);
    ready(std::move(jar), TextOf(line, "path"));
    return true;
  }
  return false;
}

void JarWorker::Fail(const std::string& error) {
  if (std::exchange(finished_, true)) return;
  const auto failed = std::move(handlers_.on_failed);
  failed(error);
}

}  // namespace jenkins_agent
