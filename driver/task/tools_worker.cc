#include "driver/task/tools_worker.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/pidfd.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

using nlohmann::json;

constexpr size_t kMaxLineBytes = 64 << 10;

}  // namespace

absl::StatusOr<std::unique_ptr<ToolsWorker>> ToolsWorker::Start(EventLoop* loop,
                                                                const JarWorkerProgram& program,
                                                                const std::string& worker,
                                                                const json& request,
                                                                Handlers handlers) {
  ASSIGN_OR_RETURN(Pipe input, MakePipe());
  StartOptions options;
  options.stdin_fd = input.read.get();
  options.pipe_stdout = true;
  const std::string name = absl::StrCat(worker, " worker");
  ASSIGN_OR_RETURN(Subprocess process,
                   jenkins_agent::Start(
                       {absl::StrCat("/proc/self/fd/", program.executable.get()), worker}, options),
                   name);
  std::unique_ptr<ToolsWorker> started(
      new ToolsWorker(loop, name, std::move(process), std::move(input.write), std::move(handlers)));
  const std::string text = request.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  RETURN_IF_ERROR(WriteAll(started->input_.get(), text), name);
  const int output = started->process_.output.get();
  if (::fcntl(output, F_SETFL, O_NONBLOCK) != 0) return ErrnoStatus("fcntl");
  RETURN_IF_ERROR(
      loop->Watch(output, EPOLLIN, [raw = started.get()](uint32_t) { raw->OnOutput(); }));
  return started;
}

ToolsWorker::~ToolsWorker() {
  loop_->Unwatch(process_.output.get());
  input_.Reset();
  SignalPidfd(process_.pidfd.get(), SIGKILL).IgnoreError();  // SIGKILL of our own child
  Wait(process_).IgnoreError();  // reaps; whatever the worker had to say is no longer wanted
}

void ToolsWorker::OnOutput() {
  char buffer[4096];
  const ssize_t count = ::read(process_.output.get(), buffer, sizeof(buffer));
  if (count < 0) return;
  if (count == 0) return Fail(absl::StrCat("the ", name_, " ended without an answer"));
  partial_line_.append(buffer, count);
  if (partial_line_.size() > kMaxLineBytes) {
    return Fail(absl::StrCat("the ", name_, "'s answer is too long"));
  }
  // A handler may destroy this object: the lines are taken out first.
  std::vector<std::string> lines;
  for (size_t end; (end = partial_line_.find('\n')) != std::string::npos;) {
    lines.push_back(partial_line_.substr(0, end));
    partial_line_.erase(0, end + 1);
  }
  const auto on_line = handlers_.on_line;
  for (const std::string& line : lines) {
    const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (object.is_object() && on_line(object)) return;
  }
}

void ToolsWorker::Fail(const std::string& error) {
  loop_->Unwatch(process_.output.get());
  const auto failed = handlers_.on_failed;
  failed(error);
}

std::string TextOf(const json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

}  // namespace jenkins_agent
