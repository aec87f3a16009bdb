#include "driver/tools/worker.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/tools/fetch.h"
#include "driver/tools/http.h"
#include "driver/tools/jar.h"
#include "driver/tools/jar_cache.h"
#include "driver/tools/privileges.h"
#include "driver/tools/request.h"

namespace jenkins_agent {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxReportBytes = 64 << 10;  // one line from the child
constexpr mode_t kCacheDirMode = 0700;

absl::Status Say(int fd, const Json& line) {
  // Names and status lines come from outside and need not be UTF-8.
  return WriteAll(fd, line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

absl::Status SayFailed(int fd, const absl::Status& error) {
  return Say(fd, {{"state", "failed"}, {"error", std::string(error.message())}});
}

// What the parent opened for the child.
struct Workplace {
  Fd cache;         // directory; only when fetching
  Fd jar;           // the given file, or an unnamed one in the cache
  Fd unsigned_jar;  // another: what is kept of a signed one
  CachedJars cached;
  std::string ca_pem;
};

absl::StatusOr<Workplace> OpenWorkplace(const AgentJarRequest& request) {
  Workplace place;
  ASSIGN_OR_RETURN(place.ca_pem, ReadCaFile(request.ca_file, request.root_pid));
  if (!request.file.empty()) {
    ASSIGN_OR_RETURN(place.jar, OpenJobFile(request.file, request.root_pid), "agent.jar");
    return place;
  }
  RETURN_IF_ERROR(MakeDirs(request.cache_dir, kCacheDirMode));
  ASSIGN_OR_RETURN(place.cache, OpenFile(request.cache_dir, O_RDONLY | O_DIRECTORY));
  for (Fd* file : {&place.jar, &place.unsigned_jar}) {
    ASSIGN_OR_RETURN(*file, OpenAt(place.cache.get(), ".", O_TMPFILE | O_RDWR, 0600),
                     "new file in ", request.cache_dir);
  }
  place.cached = FindCachedJars(place.cache.get(), request);
  return place;
}

// ---- the child ---------------------------------------------------------------------------------

absl::StatusOr<FetchedJar> Fetch(const AgentJarRequest& request, Workplace& place, int cancel_fd,
                                 int report) {
  ASSIGN_OR_RETURN(const std::unique_ptr<HttpClient> http,
                   HttpClient::Create(std::move(place.ca_pem), cancel_fd));
  std::map<std::string, JarValidators> known;
  for (const auto& [jar_url, cached] : place.cached) known.emplace(jar_url, cached.validators);
  Discovery discovery(*http, {request.urls, request.name, request.web_socket},
                      [report](const std::string& reason) {
                        Say(report, {{"state", "waiting"}, {"reason", reason}}).IgnoreError();
                      });
  for (;;) {
    ASSIGN_OR_RETURN(const std::string url, discovery.WaitForController());
    absl::StatusOr<FetchedJar> fetched =
        FetchAgentJar(*http, url, place.jar.get(), known, [report](const std::string& jar_url) {
          // A parent that is gone takes this process along; nobody else misses the line.
          Say(report, {{"state", "fetching"}, {"url", jar_url}}).IgnoreError();
        });
    if (!absl::IsUnavailable(fetched.status())) return fetched;
    RETURN_IF_ERROR(discovery.WaitAfter(std::string(fetched.status().message())));
  }
}

absl::StatusOr<Json> DoChildsWork(const AgentJarRequest& request, Workplace& place, int cancel_fd,
                                  int report) {
  if (request.file.empty()) {
    RETURN_IF_ERROR(EnterTaskNetwork(request.network_namespace, request.resolv_conf));
  }
  RETURN_IF_ERROR(BecomeNobody());
  FetchedJar fetched;
  if (request.file.empty()) {
    ASSIGN_OR_RETURN(fetched, Fetch(request, place, cancel_fd, report));
  }
  const std::string subject = request.file.empty() ? "the controller's agent.jar" : request.file;
  const Fd& jar = fetched.unchanged ? place.cached.at(fetched.url).file : place.jar;
  ASSIGN_OR_RETURN(const JarReport looked, InspectJar(jar.get()), subject);
  const pb::JarInfo& info = looked.agent;
  const bool was_signed = request.file.empty() && looked.is_signed;
  if (was_signed) {
    RETURN_IF_ERROR(CopyWithoutSignature(jar.get(), place.unsigned_jar.get()), subject);
  }
  return Json{{"state", "ready"},
              {"jar",
               {{"main_class", info.main_class()},
                {"version", info.version()},
                {"generation", pb::LauncherGeneration_Name(info.generation())},
                {"min_java", info.min_java()},
                {"runs_as_agent", info.runs_as_agent()}}},
              {"url", fetched.url},
              {"unchanged", fetched.unchanged},
              {"was_signed", was_signed},
              {"etag", fetched.validators.etag},
              {"last_modified", fetched.validators.last_modified}};
}

[[noreturn]] void ChildMain(const AgentJarRequest& request, Workplace& place, int cancel_fd,
                            int report) {
  const absl::StatusOr<Json> ready = DoChildsWork(request, place, cancel_fd, report);
  const absl::Status told = ready.ok() ? Say(report, *ready) : SayFailed(report, ready.status());
  ::_exit(told.ok() ? 0 : 1);
}

// ---- the parent --------------------------------------------------------------------------------

// Lines of the child. Everything it says may come from an attacker.
class ChildReports {
 public:
  explicit ChildReports(int fd) : fd_(fd) {}

  // Reads once. The next complete lines are in `lines`; false at the end.
  absl::StatusOr<bool> Read(std::vector<Json>& lines) {
    char block[4096];
    const ssize_t count = ::read(fd_, block, sizeof(block));
    if (count < 0) return errno == EINTR ? absl::StatusOr<bool>(true) : ErrnoStatus("read");
    if (count == 0) return false;
    buffer_.append(block, count);
    for (size_t end; (end = buffer_.find('\n')) != std::string::npos; buffer_.erase(0, end + 1)) {
      lines.push_back(Json::parse(buffer_.substr(0, end), nullptr, /*allow_exceptions=*/false));
      if (!lines.back().is_object()) return Nonsense();
    }
    if (buffer_.size() > kMaxReportBytes) return Nonsense();
    return true;
  }

  static absl::Status Nonsense() {
    return absl::InternalError("the agent.jar worker's unprivileged part reported nonsense");
  }

 private:
  const int fd_;
  std::string buffer_;
};

std::string StringOf(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

// Forwards news; the last line when the jar is ready, or the child's error.
absl::StatusOr<std::optional<Json>> TakeReport(const Json& line, int out_fd) {
  const std::string state = StringOf(line, "state");
  if (state == "waiting") {
    RETURN_IF_ERROR(Say(out_fd, {{"state", state}, {"reason", StringOf(line, "reason")}}));
  } else if (state == "fetching") {
    RETURN_IF_ERROR(Say(out_fd, {{"state", state}, {"url", StringOf(line, "url")}}));
  } else if (state == "failed") {
    return absl::FailedPreconditionError(StringOf(line, "error"));
  } else if (state == "ready" && line.contains("jar") && line["jar"].is_object()) {
    return std::optional<Json>(line);
  } else {
    return ChildReports::Nonsense();
  }
  return std::optional<Json>();
}

absl::StatusOr<Json> FollowChild(int reports_fd, int in_fd, int out_fd) {
  ChildReports reports(reports_fd);
  std::optional<Json> ready;
  for (;;) {
    pollfd fds[] = {{reports_fd, POLLIN, 0}, {in_fd, POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0 && errno != EINTR) return ErrnoStatus("poll");
    // Whatever comes on stdin behind the request, its end above all, means: no longer wanted.
    if (fds[1].revents != 0) return absl::CancelledError("cancelled");
    if (fds[0].revents == 0) continue;
    std::vector<Json> lines;
    ASSIGN_OR_RETURN(const bool more, reports.Read(lines));
    for (const Json& line : lines) {
      ASSIGN_OR_RETURN(std::optional<Json> last, TakeReport(line, out_fd));
      if (last.has_value()) ready = std::move(last);
    }
    if (more) continue;
    if (ready.has_value()) return *std::move(ready);
    return absl::InternalError("the agent.jar worker's unprivileged part died");
  }
}

// The child's word that a jar is unchanged counts only for one that was in the cache.
absl::StatusOr<std::string> TakeCached(const AgentJarRequest& request, const Workplace& place,
                                       const std::string& jar_url, std::string& sha256) {
  const auto cached = place.cached.find(jar_url);
  if (cached == place.cached.end()) return ChildReports::Nonsense();
  sha256 = cached->second.sha256;
  return absl::StrCat(request.cache_dir, "/", sha256, ".jar");
}

absl::Status FinishReady(const AgentJarRequest& request, const Workplace& place, Json ready,
                         int out_fd) {
  FetchedJar fetched{StringOf(ready, "url"),
                     ready.value("unchanged", Json()) == true,
                     {StringOf(ready, "etag"), StringOf(ready, "last_modified")}};
  const bool was_signed = request.file.empty() && ready.value("was_signed", Json()) == true;
  const bool kept = fetched.unchanged && !was_signed;
  const Fd& jar_file = was_signed ? place.unsigned_jar : place.jar;
  std::string path;
  std::string sha256;
  if (kept) {
    ASSIGN_OR_RETURN(path, TakeCached(request, place, fetched.url, sha256));
  } else {
    ASSIGN_OR_RETURN(sha256, Sha256OfFile(jar_file.get()));
  }
  if (request.file.empty() && !kept) {
    ASSIGN_OR_RETURN(path, KeepJar(place.cache.get(), request, jar_file.get(), sha256));
    // Best effort: without it the jar is transferred again.
    KeepOrigin(place.cache.get(), request, fetched, sha256).IgnoreError();
  }
  Json jar = ready["jar"];
  jar["sha256"] = sha256;
  return Say(out_fd, {{"state", "ready"}, {"path", path}, {"jar", std::move(jar)}});
}

absl::Status Work(int in_fd, int out_fd) {
  ASSIGN_OR_RETURN(const std::string line, ReadRequestLine(in_fd));
  ASSIGN_OR_RETURN(const AgentJarRequest request, ParseAgentJarRequest(line));
  ASSIGN_OR_RETURN(Workplace place, OpenWorkplace(request));
  ASSIGN_OR_RETURN(Pipe reports, MakePipe());
  const pid_t child = ::fork();
  if (child < 0) return ErrnoStatus("fork");
  if (child == 0) {
    reports.read.Reset();
    place.cache.Reset();
    ChildMain(request, place, in_fd, reports.write.get());
  }
  reports.write.Reset();
  absl::StatusOr<Json> ready = FollowChild(reports.read.get(), in_fd, out_fd);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  RETURN_IF_ERROR(ready.status());
  return FinishReady(request, place, *std::move(ready), out_fd);
}

}  // namespace

int RunAgentJarWorker(int in_fd, int out_fd) {
  const absl::Status status = Work(in_fd, out_fd);
  if (status.ok()) return 0;
  // A plugin that cancelled, or died, does not read this.
  if (!absl::IsCancelled(status)) SayFailed(out_fd, status).IgnoreError();
  return 1;
}

}  // namespace jenkins_agent
