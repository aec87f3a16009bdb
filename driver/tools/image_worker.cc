#include "driver/tools/image_worker.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/image/decompress.h"
#include "driver/image/image_name.h"
#include "driver/image/sources.h"
#include "driver/image/store.h"
#include "driver/image/unpack.h"
#include "driver/tools/confine.h"
#include "driver/tools/request.h"

namespace jenkins_agent {
namespace {

constexpr size_t kMaxConfigFileBytes = 1 << 20;

// The job's own, else what docker's file says, else what the helper does.
absl::StatusOr<std::optional<Credentials>> FindJobCredentials(const ImageJob& job,
                                                              const ImageName& name) {
  if (job.credentials.has_value() || name.transport != Transport::kRegistry) return job.credentials;
  CredentialSource source;
  if (!job.auth_file.empty()) {
    ASSIGN_OR_RETURN(const std::string text, ReadFile(job.auth_file, kMaxConfigFileBytes),
                     "credentials");
    ASSIGN_OR_RETURN(source, FindCredentials(text, name.reference.host, name.reference.repository),
                     job.auth_file);
  }
  if (source.credentials.has_value()) return source.credentials;
  if (source.helper.empty()) source.helper = job.auth_helper;
  if (source.helper.empty()) return std::optional<Credentials>();
  return AskCredentialHelper(source.helper, name.reference.host);
}

Confinement ConfinementFor(const ImageJob& job, const ImageName& name) {
  Confinement confinement = {.writable = job.store,
                             .readable = {},
                             .network = name.transport == Transport::kRegistry,
                             .max_file_bytes = kMaxLayerBytes};
  if (!confinement.network) {
    confinement.readable = {name.path};
  } else {
    confinement.readable = NetworkFiles();
    if (!job.ca_file.empty()) confinement.readable.push_back(job.ca_file);
  }
  return confinement;
}

// A root file system that holds the store would grow while it is read.
absl::Status CheckPath(const ImageJob& job, const ImageName& name) {
  if (name.transport != Transport::kRootfs) return absl::OkStatus();
  std::error_code ignored;
  const std::string path = std::filesystem::weakly_canonical(name.path, ignored).string();
  const std::string store = std::filesystem::weakly_canonical(job.store, ignored).string();
  if (path != "/" && !absl::StartsWith(store + "/", path + "/")) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(path, " holds the image store"));
}

// ---- the child ---------------------------------------------------------------------------------

absl::StatusOr<PullResult> ConfineAndPull(const ImageJob& job, const ImageName& name,
                                          const std::optional<Credentials>& credentials,
                                          const std::function<void(const PullProgress&)>& tell) {
  LoadGzipLibrary();  // while the host's libraries are to be seen
  RETURN_IF_ERROR(Confine(ConfinementFor(job, name)), "confine the image worker");
  ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, Store::Open(job.store));
  ASSIGN_OR_RETURN(const std::unique_ptr<ImageSource> source,
                   OpenSource(name, {.plain_http = job.plain_http,
                                     .ca_file = job.ca_file,
                                     .mirrors = job.mirrors,
                                     .credentials = credentials}));
  return Pull(*store, *source,
              {.name = name.ToString(),
               .digest = name.reference.digest,
               .sync = job.sync,
               .on_progress = tell});
}

[[noreturn]] void ChildMain(const ImageJob& job, const ImageName& name,
                            const std::optional<Credentials>& credentials, int out_fd) {
  // Without the parent nobody would remove what is left of a pull that fails.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);  // a file beyond the limit is an error like others
  ImageReport report;
  absl::StatusOr<PullResult> result =
      ConfineAndPull(job, name, credentials, [&report, out_fd](const PullProgress& progress) {
        report.result.progress = progress;
        // A parent that is gone takes this process along.
        WriteAll(out_fd, ImageReportLine(report)).IgnoreError();
      });
  report.finished = true;
  report.status = result.status();
  if (result.ok()) report.result = *std::move(result);
  ::_exit(WriteAll(out_fd, ImageReportLine(report)).ok() && report.status.ok() ? 0 : 1);
}

// ---- the parent --------------------------------------------------------------------------------

// What the child says, and when nobody wants it any more. What comes may be an attacker's.
absl::StatusOr<PullResult> FollowChild(
    int reports_fd, int cancel_fd, const std::function<void(const PullProgress&)>& on_progress) {
  std::string buffer;
  for (;;) {
    pollfd fds[] = {{reports_fd, POLLIN, 0}, {cancel_fd, POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0 && errno != EINTR) return ErrnoStatus("poll");
    if (fds[1].revents != 0) return absl::CancelledError("cancelled");
    if (fds[0].revents == 0) continue;
    char block[4096];
    const ssize_t count = ::read(reports_fd, block, sizeof(block));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus("read");
    if (count == 0) return absl::InternalError("the image worker died");
    buffer.append(block, count);
    for (size_t end; (end = buffer.find('\n')) != std::string::npos; buffer.erase(0, end + 1)) {
      ASSIGN_OR_RETURN(ImageReport report, ParseImageReport(buffer.substr(0, end)));
      if (report.finished && !report.status.ok()) return report.status;
      if (report.finished) return std::move(report.result);
      if (on_progress) on_progress(report.result.progress);
    }
    if (buffer.size() > kMaxImageLineBytes) {
      return absl::InternalError("the image worker's report is too long");
    }
  }
}

// As fork(2). The child is the first of a new pid namespace: it sees no process of the host.
absl::StatusOr<pid_t> ForkIntoPidNamespace() {
  ASSIGN_OR_RETURN(const Fd own, OpenFile("/proc/self/ns/pid", O_RDONLY));
  if (::unshare(CLONE_NEWPID) != 0) return ErrnoStatus("unshare the pid namespace");
  const pid_t child = ::fork();
  if (child < 0) return ErrnoStatus("fork");
  // What the parent starts later belongs where the parent is.
  if (child > 0 && ::setns(own.get(), CLONE_NEWPID) != 0) {
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    return ErrnoStatus("go back to the pid namespace");
  }
  return child;
}

absl::StatusOr<PullResult> RunChild(const ImageJob& job, const ImageName& name, int cancel_fd,
                                    const std::function<void(const PullProgress&)>& on_progress) {
  RETURN_IF_ERROR(CheckPath(job, name));
  ASSIGN_OR_RETURN(const std::optional<Credentials> credentials, FindJobCredentials(job, name));
  ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, Store::Open(job.store));
  // What dead pulls left goes first: its room may be what is missing, and a layer of theirs that no
  // image has would be taken for a known one, without size and digest. What cannot be removed
  // hinders nobody.
  store->Sweep().IgnoreError();
  ASSIGN_OR_RETURN(Pipe reports, MakePipe());
  ASSIGN_OR_RETURN(const pid_t child, ForkIntoPidNamespace());
  if (child == 0) {
    const int report = reports.write.get();
    // Nothing of the parent's but the pipe: no store, whose directories lie outside the new root.
    ::close_range(STDERR_FILENO + 1, report - 1, 0);
    ::close_range(report + 1, ~0U, 0);
    ::close(STDIN_FILENO);
    ChildMain(job, name, credentials, report);
  }
  reports.write.Reset();
  absl::StatusOr<PullResult> result = FollowChild(reports.read.get(), cancel_fd, on_progress);
  ::kill(child, SIGKILL);  // it may hang where it was told to stop; all its threads go with it
  ::waitpid(child, nullptr, 0);
  if (!result.ok()) store->Sweep().IgnoreError();  // why it failed is the news
  return result;
}

absl::Status Work(int in_fd, int out_fd) {
  ASSIGN_OR_RETURN(const std::string line, ReadRequestLine(in_fd));
  ASSIGN_OR_RETURN(const ImageJob job, ParseImageJob(line));
  ImageReport report;
  ASSIGN_OR_RETURN(report.result,
                   PullConfined(job, in_fd, [&report, out_fd](const PullProgress& progress) {
                     report.result.progress = progress;
                     // Whoever does not read this has closed the other pipe, too.
                     WriteAll(out_fd, ImageReportLine(report)).IgnoreError();
                   }));
  report.finished = true;
  return WriteAll(out_fd, ImageReportLine(report));
}

}  // namespace

absl::StatusOr<PullResult> PullConfined(
    const ImageJob& job, int cancel_fd,
    const std::function<void(const PullProgress&)>& on_progress) {
  ASSIGN_OR_RETURN(const ImageName name, ParseImageName(job.image));
  absl::StatusOr<PullResult> result = RunChild(job, name, cancel_fd, on_progress);
  if (!result.ok()) return Annotate(result.status(), name.ToString());
  return result;
}

int RunImageWorker(int in_fd, int out_fd) {
  const absl::Status status = Work(in_fd, out_fd);
  if (status.ok()) return 0;
  ImageReport report;
  report.finished = true;
  report.status = status;
  // A plugin that cancelled, or died, does not read this.
  WriteAll(out_fd, ImageReportLine(report)).IgnoreError();
  return 1;
}

}  // namespace jenkins_agent
