#define MSGPACK_NO_BOOST
#include "driver/service/trial.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <future>
#include <iostream>
#include <map>
#include <msgpack.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "driver/base/clock.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/jvm/java.h"
#include "driver/service/fingerprint.h"

namespace jenkins_agent {
namespace {

using Json = nlohmann::json;
using NomadTask = hashicorp::nomad::plugins::drivers::proto::TaskConfig;

constexpr char kTask[] = "trial";
constexpr int64_t kMemoryMb = 256;
constexpr size_t kMaxSaid = 4096;
constexpr std::chrono::seconds kJvmLimit{30};

struct Trial {
  std::string java_home = {};
  double sandbox_ms = 0;
  std::string said = {};  // the JVM's own first line
};

std::string Packed(const auto& value) {
  msgpack::sbuffer bytes;
  msgpack::pack(bytes, value);
  return {bytes.data(), bytes.size()};
}

// The directories that Nomad makes, and the file that takes the output.
absl::StatusOr<std::string> MakePlace() {
  std::string dir = "/tmp/nomad-driver-jenkins-agent-trial.XXXXXX";
  if (::mkdtemp(dir.data()) == nullptr) return ErrnoStatus(absl::StrCat("make ", dir));
  ::chmod(dir.c_str(), 0711);  // the sandbox's user passes through
  for (const char* part : {"alloc/logs", "trial/local", "trial/secrets"}) {
    const std::string path = absl::StrCat(dir, "/allocs/", part);
    RETURN_IF_ERROR(MakeDirs(path));
    if (::chmod(path.c_str(), 0777) != 0) return ErrnoStatus(path);
  }
  RETURN_IF_ERROR(OpenFile(dir + "/output", O_WRONLY | O_CREAT | O_EXCL, 0600).status());
  return dir;
}

NomadTask TaskIn(const std::string& dir, const std::string& java_home) {
  NomadTask task;
  task.set_id(absl::StrCat("doctor-", ::getpid()));
  task.set_alloc_id(task.id());
  task.set_name(kTask);
  task.set_alloc_dir(dir + "/allocs");
  task.set_stdout_path(dir + "/output");
  task.set_stderr_path(dir + "/output");
  task.mutable_resources()->mutable_allocated_resources()->mutable_memory()->set_memory_mb(
      kMemoryMb);
  msgpack::sbuffer bytes;
  msgpack::packer<msgpack::sbuffer> packer(bytes);
  packer.pack_map(2);
  packer.pack("command");
  packer.pack(java_home + "/bin/java");
  packer.pack("args");
  packer.pack(std::vector<std::string>{"-version"});
  task.set_msgpack_driver_config(std::string(bytes.data(), bytes.size()));
  return task;
}

absl::StatusOr<pb::ExitRecord> RunToItsEnd(TaskStore& store, const NomadTask& config,
                                           double& sandbox_ms) {
  RETURN_IF_ERROR(store.Start(config, MonotonicNs()).status());
  ASSIGN_OR_RETURN(const std::shared_ptr<Task> task, store.Find(config.id()));
  sandbox_ms = task->last_status().timings().sandbox_ms();
  auto ended = std::make_shared<std::promise<pb::ExitRecord>>();
  std::future<pb::ExitRecord> exit = ended->get_future();
  task->Wait([ended](const pb::ExitRecord& record) { ended->set_value(record); });
  if (exit.wait_for(kJvmLimit) == std::future_status::ready) return exit.get();
  return absl::DeadlineExceededError(
      absl::StrCat("the JVM did not end within ", kJvmLimit.count(), " s"));
}

absl::StatusOr<Trial> TryIn(const std::string& dir, const std::vector<std::string>& java_homes,
                            const EmbeddedPrograms& programs) {
  ASSIGN_OR_RETURN(const std::vector<JavaInstall> javas, FindJavaHomes(java_homes));
  if (javas.empty()) return absl::NotFoundError("no JDK found, see option java_homes");
  Runtime runtime(programs);
  const std::map<std::string, std::string> config = {{"state_dir", dir + "/state"}};
  RETURN_IF_ERROR(runtime.Configure(Packed(config), Runtime::NomadConfig()));
  ASSIGN_OR_RETURN(TaskStore* const store, runtime.Store());
  Trial trial{.java_home = javas.front().path};
  const NomadTask task = TaskIn(dir, trial.java_home);
  const absl::StatusOr<pb::ExitRecord> exit = RunToItsEnd(*store, task, trial.sandbox_ms);
  RETURN_IF_ERROR(store->Destroy(task.id(), /*force=*/true), "clean-up");
  RETURN_IF_ERROR(exit.status());
  ASSIGN_OR_RETURN(trial.said, ReadFile(dir + "/output", kMaxSaid));
  if (exit->exit_code() == 0) return trial;
  return absl::InternalError(absl::StrCat(trial.java_home, "/bin/java -version ended with ",
                                          exit->exit_code(), exit->message().empty() ? "" : ": ",
                                          exit->message(), trial.said.empty() ? "" : ": ",
                                          absl::StripAsciiWhitespace(trial.said)));
}

absl::StatusOr<Trial> Try(const std::vector<std::string>& java_homes,
                          const EmbeddedPrograms& programs) {
  if (::geteuid() != 0) return absl::PermissionDeniedError("needs root");
  ASSIGN_OR_RETURN(const std::string dir, MakePlace());
  absl::StatusOr<Trial> trial = TryIn(dir, java_homes, programs);
  RETURN_IF_ERROR(RemoveTree(dir), "clean-up");
  return trial;
}

}  // namespace

int RunTrial(const EmbeddedPrograms& programs, std::istream& in, std::ostream& out) {
  const Json request = Json::parse(in, nullptr, /*allow_exceptions=*/false);
  std::vector<std::string> java_homes;
  if (request.is_object() && request.contains("java_homes")) {
    request["java_homes"].get_to(java_homes);
  }
  const absl::StatusOr<Trial> trial = Try(java_homes, programs);
  Json answer = {{"ok", trial.ok()}};
  if (trial.ok()) {
    answer["java"] = trial->java_home;
    answer["sandbox_ms"] = trial->sandbox_ms;
    answer["said"] = trial->said.substr(0, trial->said.find('\n'));
  } else {
    answer["error"] = std::string(trial.status().message());
  }
  out << answer.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
  return trial.ok() ? 0 : 1;
}

}  // namespace jenkins_agent
