#include "driver/task/jar_worker.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/pidfd.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

using nlohmann::json;

constexpr size_t kMaxLineBytes = 64 << 10;

std::string RequestText(const JarWorkerProgram& program, const JarWorker::Request& request) {
  const json text = {{"urls", request.urls},
                     {"name", request.name},
                     {"ca_file", request.ca_file},
                     {"web_socket", request.web_socket},
                     {"network_namespace", request.network_namespace},
                     {"resolv_conf", request.resolv_conf},
                     {"cache_dir", program.cache_dir},
                     {"file", request.file},
                     {"root_pid", request.root_pid}};
  return text.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

std::string TextOf(const json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
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
  return info;
}

}  // namespace

absl::StatusOr<std::unique_ptr<JarWorker>> JarWorker::Start(EventLoop* loop,
                                                            const JarWorkerProgram& program,
                                                            const Request& request,
                                                            Handlers handlers) {
  ASSIGN_OR_RETURN(Pipe input, MakePipe());
  StartOptions options;
  options.stdin_fd = input.read.get();
  options.pipe_stdout = true;
  ASSIGN_OR_RETURN(Subprocess process,
                   jenkins_agent::Start({absl::StrCat("/proc/self/fd/", program.executable.get()),
                                         request.only_ask ? "controller-check" : "agent-jar"},
                                        options),
                   "agent.jar worker");
  std::unique_ptr<JarWorker> worker(
      new JarWorker(loop, std::move(process), std::move(input.write), std::move(handlers)));
  RETURN_IF_ERROR(WriteAll(worker->input_.get(), RequestText(program, request)),
                  "agent.jar worker");
  if (::fcntl(worker->process_.output.get(), F_SETFL, O_NONBLOCK) != 0) return ErrnoStatus("fcntl");
  RETURN_IF_ERROR(loop->Watch(worker->process_.output.get(), EPOLLIN,
                              [raw = worker.get()](uint32_t) { raw->OnOutput(); }));
  return worker;
}

JarWorker::~JarWorker() {
  loop_->Unwatch(process_.output.get());
  input_.Reset();
  SignalPidfd(process_.pidfd.get(), SIGKILL).IgnoreError();  // SIGKILL of our own child
  Wait(process_).IgnoreError();  // reaps; whatever the worker had to say is no longer wanted
}

void JarWorker::OnOutput() {
  char buffer[4096];
  const ssize_t count = ::read(process_.output.get(), buffer, sizeof(buffer));
  if (count < 0) return;
  if (count == 0) {
    loop_->Unwatch(process_.output.get());
    Fail("the agent.jar worker ended without an answer");
    return;
  }
  partial_line_.append(buffer, count);
  if (partial_line_.size() > kMaxLineBytes) {
    Fail("the agent.jar worker's answer is too long");
    return;
  }
  // A handler may destroy this object: the lines are taken out first.
  std::vector<std::string> lines;
  for (size_t end; (end = partial_line_.find('\n')) != std::string::npos;) {
    lines.push_back(partial_line_.substr(0, end));
    partial_line_.erase(0, end + 1);
  }
  for (const std::string& line : lines) {
    if (OnLine(line)) return;
  }
}

bool JarWorker::OnLine(const std::string& line) {
  const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return false;
  const std::string state = TextOf(object, "state");
  if (state == "waiting") {
    handlers_.on_waiting(TextOf(object, "reason"));
  } else if (state == "failed") {
    Fail(TextOf(object, "error"));
    return true;
  } else if (state == "ready" && !finished_) {
    finished_ = true;
    pb::JarInfo jar = JarInfoOf(object.value("jar", json::object()));
    const auto ready = std::move(handlers_.on_ready);
    ready(std::move(jar), TextOf(object, "path"));
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
