// The plugin's process as go-plugin's host sees it.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "tests/contract/plugin_host.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

namespace base = hashicorp::nomad::plugins::base::proto;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<std::string> FilesIn(const std::string& dir) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) names.push_back(entry.path());
  return names;
}

// Descriptors above stderr that an exec would not close.
std::vector<std::string> InheritableFds(pid_t pid) {
  std::vector<std::string> found;
  for (const std::string& fd : FilesIn(absl::StrCat("/proc/", pid, "/fd"))) {
    const std::string number = std::filesystem::path(fd).filename();
    const auto info = ReadFile(absl::StrCat("/proc/", pid, "/fdinfo/", number));
    if (std::stoi(number) <= 2 || !info.ok()) continue;  // not ok: closed meanwhile
    const size_t flags = info->find("flags:\t") + 7;
    if ((std::stol(info->substr(flags), nullptr, 8) & O_CLOEXEC) == 0) {
      std::error_code gone;
      found.push_back(number + " " + std::filesystem::read_symlink(fd, gone).string());
    }
  }
  return found;
}

class PluginProcess : public testing::Test {
 protected:
  std::unique_ptr<PluginHost> Launch(PluginHost::Options options = {}) {
    options.env.emplace("TMPDIR", dir_.path());
    auto host = PluginHost::Launch(TEST_PLUGIN, options);
    EXPECT_OK(host);
    return *std::move(host);
  }

  static grpc::Status PluginInfo(PluginHost& host, base::PluginInfoResponse* info) {
    grpc::ClientContext context;
    return host.base().PluginInfo(&context, {}, info);
  }
  static void ExpectAnswers(PluginHost& host) {
    base::PluginInfoResponse info;
    const grpc::Status status = PluginInfo(host, &info);
    EXPECT_TRUE(status.ok()) << status.error_message() << host.stderr_text();
    EXPECT_EQ(info.name(), "test");
  }
  static grpc::StatusCode Health(PluginHost& host, const std::string& service, int* state) {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(service);
    grpc::health::v1::HealthCheckResponse response;
    const grpc::Status status = host.connection().health().Check(&context, request, &response);
    *state = response.status();
    return status.error_code();
  }
  static grpc::Status SetConfig(PluginHost& host, const std::string& config) {
    grpc::ClientContext context;
    base::SetConfigRequest request;
    request.set_msgpack_config(config);
    base::SetConfigResponse response;
    return host.base().SetConfig(&context, request, &response);
  }

  TempDir dir_;
};

TEST_F(PluginProcess, SaysExactlyTheHandshakeOnStdout) {
  const auto host = Launch();
  ASSERT_THAT(FilesIn(dir_.path()), ElementsAre(host->socket_path()));
  EXPECT_EQ(host->stdout_text(), absl::StrCat("1|2|unix|", host->socket_path(), "|grpc|\n"));
  ASSERT_OK(host->Kill());
  EXPECT_EQ(host->stdout_text(), absl::StrCat("1|2|unix|", host->socket_path(), "|grpc|\n"));
}

// Nomad gives its plugins the soft limit of whoever started it, often 1024.
TEST_F(PluginProcess, MayOpenAsManyFilesAsTheHardLimitAllows) {
  rlimit ours;
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &ours), 0);
  const rlimit low = {.rlim_cur = 256, .rlim_max = ours.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
  const auto host = Launch();
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &ours), 0);
  rlimit limit;
  ASSERT_EQ(::prlimit(host->pid(), RLIMIT_NOFILE, nullptr, &limit), 0);
  EXPECT_EQ(limit.rlim_cur, ours.rlim_max);
}

TEST_F(PluginProcess, SocketIsForTheSameUserOnly) {
  const auto host = Launch();
  struct stat info;
  ASSERT_EQ(::stat(host->socket_path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0600u);
}

TEST_F(PluginProcess, AnswersNomadsBaseServiceAndHealth) {
  const auto host = Launch();
  base::PluginInfoResponse info;
  ASSERT_TRUE(PluginInfo(*host, &info).ok());
  EXPECT_EQ(info.type(), base::DRIVER);
  EXPECT_THAT(info.plugin_api_versions(), ElementsAre("v0.1.0"));
  EXPECT_EQ(info.plugin_version(), "0.1.0");
  int state = 0;
  EXPECT_EQ(Health(*host, "plugin", &state), grpc::StatusCode::OK);
  EXPECT_EQ(state, grpc::health::v1::HealthCheckResponse::SERVING);
  EXPECT_EQ(Health(*host, "other", &state), grpc::StatusCode::NOT_FOUND);
}

TEST_F(PluginProcess, EndsAtOnceWhenAskedTo) {
  const auto host = Launch();
  ExpectAnswers(*host);
  EXPECT_FALSE(host->connection().streams_ended());
  ASSERT_OK_AND_ASSIGN(const PluginHost::End end, host->Kill());
  EXPECT_FALSE(end.killed);
  EXPECT_EQ(end.exit.exit_code, 0) << host->stderr_text();
  EXPECT_THAT(host->stderr_text(), HasSubstr("asked to end"));
  EXPECT_THAT(FilesIn(dir_.path()), IsEmpty());
}

TEST_F(PluginProcess, StreamsOfGoPluginStayOpen) {
  const auto host = Launch();
  ExpectAnswers(*host);
  grpc::ClientContext context;
  plugin::ConnInfo info;
  const auto channel =
      grpc::CreateChannel("unix:" + host->socket_path(), grpc::InsecureChannelCredentials());
  const auto stub = plugin::GRPCBroker::NewStub(channel);
  const auto stream = stub->StartStream(&context);
  ASSERT_TRUE(stream->Write(info));
  ASSERT_TRUE(stream->WritesDone());
  EXPECT_FALSE(stream->Read(&info));  // the host closed its side
  EXPECT_TRUE(stream->Finish().ok());
  ExpectAnswers(*host);
  EXPECT_FALSE(host->connection().streams_ended());
}

TEST_F(PluginProcess, EndsInTimeWhileACallIsStuck) {
  const auto host = Launch({.args = {"block"}});
  std::thread stuck([&host] { (void)SetConfig(*host, ""); });
  ASSERT_TRUE(host->AwaitStderr("blocked"));
  // Kill closes the connection, which the stuck call still uses: Shutdown by hand.
  grpc::ClientContext context;
  plugin::Empty answer;
  EXPECT_TRUE(host->connection().controller().Shutdown(&context, {}, &answer).ok());
  ASSERT_OK_AND_ASSIGN(const PluginHost::End end, host->AwaitEnd());
  EXPECT_EQ(end.exit.exit_code, 0);
  EXPECT_THAT(FilesIn(dir_.path()), IsEmpty());
  stuck.join();
}

TEST_F(PluginProcess, EndsInTimeWhileMainHangs) {
  const auto host = Launch({.args = {"hang"}});
  ASSERT_OK_AND_ASSIGN(const PluginHost::End end, host->Kill());
  EXPECT_FALSE(end.killed);
  EXPECT_THAT(FilesIn(dir_.path()), IsEmpty());
}

TEST_F(PluginProcess, ToleratesASecondShutdown) {
  const auto host = Launch({.args = {"hang"}});
  grpc::ClientContext context;
  plugin::Empty answer;
  EXPECT_TRUE(host->connection().controller().Shutdown(&context, {}, &answer).ok());
  ASSERT_OK_AND_ASSIGN(const PluginHost::End end, host->Kill());
  EXPECT_FALSE(end.killed);
}

TEST_F(PluginProcess, IgnoresCtrlC) {
  const auto host = Launch();
  ::kill(host->pid(), SIGINT);
  ExpectAnswers(*host);
}

TEST_F(PluginProcess, ThreeRunSideBySide) {
  const auto first = Launch();
  const auto second = Launch();
  const auto third = Launch();
  EXPECT_EQ(std::set({first->socket_path(), second->socket_path(), third->socket_path()}).size(),
            3u);
  for (const auto& host : {first.get(), second.get(), third.get()}) ExpectAnswers(*host);
  ASSERT_OK(second->Kill());
  ExpectAnswers(*first);
  ExpectAnswers(*third);
}

TEST_F(PluginProcess, WithoutNomadsCookieSaysWhatItIs) {
  for (const std::optional<std::string>& cookie : {std::optional<std::string>(), {"wrong"}}) {
    const auto host = Launch({.env = {{"NOMAD_PLUGIN_MAGIC_COOKIE", cookie}}});
    EXPECT_FALSE(host->connected());
    ASSERT_OK_AND_ASSIGN(const PluginHost::End end, host->AwaitEnd());
    EXPECT_EQ(end.exit.exit_code, 1);
    EXPECT_EQ(host->stdout_text(), "");
    EXPECT_THAT(host->stderr_text(), HasSubstr("Nomad task driver plugin"));
  }
}

TEST_F(PluginProcess, RefusesTlsLoudly) {
  const auto host = Launch({.env = {{"PLUGIN_CLIENT_CERT", "-----BEGIN CERTIFICATE-----"}}});
  ASSERT_OK_AND_ASSIGN(const PluginHost::End end, host->AwaitEnd());
  EXPECT_EQ(end.exit.exit_code, 1);
  EXPECT_EQ(host->stdout_text(), "");
  EXPECT_THAT(host->stderr_text(), HasSubstr("PLUGIN_CLIENT_CERT"));
}

TEST_F(PluginProcess, NamesASocketDirectoryThatIsNotThere) {
  const auto host = Launch({.env = {{"PLUGIN_UNIX_SOCKET_DIR", "/no/such/dir"}}});
  ASSERT_OK_AND_ASSIGN(const PluginHost::End end, host->AwaitEnd());
  EXPECT_EQ(end.exit.exit_code, 1);
  EXPECT_THAT(host->stderr_text(), HasSubstr("/no/such/dir"));
}

TEST_F(PluginProcess, SurvivesTheAgent) {
  const auto host = Launch();
  ExpectAnswers(*host);
  host->CrashAgent();
  host->Reattach();
  grpc::Status status = SetConfig(*host, "x");  // logs to a pipe that nobody reads
  EXPECT_TRUE(status.ok()) << status.error_message();
  base::PluginInfoResponse info;
  EXPECT_TRUE(PluginInfo(*host, &info).ok());
  ASSERT_OK_AND_ASSIGN(const PluginHost::End end, host->Kill());
  EXPECT_FALSE(end.killed);
  EXPECT_EQ(end.exit.exit_code, 0);
}

TEST_F(PluginProcess, ACrashIsSeenOnBothPipes) {
  const auto host = Launch();
  ExpectAnswers(*host);
  EXPECT_FALSE(host->pipes_ended());
  ASSERT_OK_AND_ASSIGN(const PluginHost::End end, host->Crash());
  EXPECT_EQ(end.exit.signal, SIGKILL);
}

TEST_F(PluginProcess, TakesBigMessages) {
  const auto host = Launch();
  const grpc::Status status = SetConfig(*host, std::string(20 << 20, 'x'));
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_TRUE(host->AwaitStderr(absl::StrCat("config of ", 20 << 20, " bytes")));
}

TEST_F(PluginProcess, KeepsNoDescriptorThatItInherited) {
  ASSERT_OK_AND_ASSIGN(const Pipe inherited, MakePipe());
  struct stat info;
  ASSERT_EQ(::fstat(inherited.write.get(), &info), 0);
  const std::string leak = absl::StrCat("pipe:[", info.st_ino, "]");
  const auto host = Launch({.fds = {{inherited.write.get(), 7}}});
  for (const std::string& fd : FilesIn(absl::StrCat("/proc/", host->pid(), "/fd"))) {
    std::error_code gone;  // gRPC opens and closes some meanwhile
    EXPECT_NE(std::filesystem::read_symlink(fd, gone), leak) << fd;
  }
}

TEST_F(PluginProcess, StdioIsOutOfReachOfChildren) {
  const auto host = Launch();
  ExpectAnswers(*host);
  const std::string fds = absl::StrCat("/proc/", host->pid(), "/fd/");
  EXPECT_EQ(std::filesystem::read_symlink(fds + "0"), "/dev/null");
  EXPECT_EQ(std::filesystem::read_symlink(fds + "1"), "/dev/null");
  // The sanitizers' runtime has a plain pipe for moments.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!InheritableFds(host->pid()).empty() && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  EXPECT_THAT(InheritableFds(host->pid()), IsEmpty());
}

}  // namespace
}  // namespace jenkins_agent
