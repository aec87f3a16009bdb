// The whole worker as the plugin runs it: its own process, as root, with stdin kept open.
#include "driver/tools/worker.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "driver/tools/jar.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/tools/fake_controller.h"
#include "tests/tools/fake_jar.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

constexpr char kResolver[] = "nameserver 127.0.0.1\n";

// The only child of a process; 0: it has none.
pid_t ChildOf(pid_t parent) {
  pid_t child = 0;
  std::ifstream(absl::StrCat("/proc/", parent, "/task/", parent, "/children")) >> child;
  return child;
}

class Worker {
 public:
  explicit Worker(const Json& request, const char* command = "agent-jar") {
    Pipe in = *MakePipe(), out = *MakePipe();
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(in.read.get(), STDIN_FILENO);
      ::dup2(out.write.get(), STDOUT_FILENO);
      ::execl(TOOLS_PROGRAM, "tools", command, nullptr);
      ::_exit(127);
    }
    in_ = std::move(in.write);
    out_ = std::move(out.read);
    WriteAll(in_.get(), request.dump() + "\n").IgnoreError();
  }
  ~Worker() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
  }
  pid_t pid() const { return pid_; }
  void CloseStdin() { in_.Reset(); }
  Json NextLine() {
    std::string line;
    for (char c = 0; ::read(out_.get(), &c, 1) == 1 && c != '\n';) line += c;
    return Json::parse(line, nullptr, false);
  }
  // The last line of all.
  Json Result() {
    Json last;
    for (Json line = NextLine(); !line.is_discarded(); line = NextLine()) last = line;
    return last;
  }
  int ExitCode() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  pid_t pid_ = -1;
  Fd in_, out_;
};

class WorkerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    // The worker's unprivileged half must be able to look around, as on a real host.
    std::filesystem::permissions(dir_.path(), static_cast<std::filesystem::perms>(0755));
  }
  std::string cache() const { return dir_.path() + "/cache/agent"; }
  std::string WriteJar(const std::string& content) {
    const std::string path = dir_.path() + "/given.jar";
    std::ofstream(path) << content;
    return path;
  }
  size_t CachedFiles() const {
    return std::distance(std::filesystem::directory_iterator(cache()), {});
  }
  FakeController::Handler Serve(const std::string& jar) {
    return [jar](const std::string& path, const FakeController::Send& send) {
      send(path == "/jnlpJars/agent.jar"
               ? FakeController::Answer("200 OK", "", jar)
               : FakeController::Answer("200 OK", "X-Jenkins-JNLP-Port: 1\r\n", ""));
    };
  }

  const TempDir dir_;
};

TEST_F(WorkerTest, FetchesIntoTheCacheUnderTheDigest) {
  REQUIRES_ROOT();
  const std::string jar = CurrentAgentJar();
  const FakeController controller(Serve(jar));
  for (int round = 0; round < 2; ++round) {
    Worker worker({{"urls", {controller.url()}}, {"name", "linux-1"}, {"cache_dir", cache()}});
    EXPECT_EQ(worker.NextLine(),
              Json({{"state", "fetching"}, {"url", controller.url() + "jnlpJars/agent.jar"}}));
    const Json ready = worker.Result();
    ASSERT_EQ(ready["state"], "ready") << ready;
    const std::string sha256 = ready["jar"]["sha256"];
    EXPECT_EQ(ready["path"], absl::StrCat(cache(), "/", sha256, ".jar"));
    EXPECT_EQ(ready["jar"]["generation"], "LAUNCHER_JENKINS");
    EXPECT_EQ(ready["jar"]["main_class"], "hudson.remoting.Launcher");
    EXPECT_EQ(ready["jar"]["min_java"], 17);
    EXPECT_EQ(worker.ExitCode(), 0);
    ASSERT_OK_AND_ASSIGN(const std::string cached, ReadFile(ready["path"], 1 << 20));
    EXPECT_EQ(cached, jar);
    struct stat status = {};
    ASSERT_EQ(::stat(ready["path"].get<std::string>().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, 0444u);
    EXPECT_EQ(status.st_uid, 0u);
  }
  EXPECT_EQ(CachedFiles(), 1u);
}

// A controller that knows its jar's version.
class VersionedController {
 public:
  explicit VersionedController(const std::string& jar) : jar_(jar) {}
  void Change(const std::string& jar) { jar_ = jar; }
  int transfers() const { return transfers_; }
  std::string url() const { return server_.url(); }

 private:
  void Answer(const std::string& path, const FakeController::Send& send) {
    if (path != "/jnlpJars/agent.jar") {
      send(FakeController::Answer("200 OK", "X-Jenkins-JNLP-Port: 1\r\n", ""));
      return;
    }
    const std::string tag = absl::StrCat("\"", std::hash<std::string>()(jar_), "\"");
    if (absl::StrContains(server_.requests().back(), "If-None-Match: " + tag)) {
      send("HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n");
      return;
    }
    ++transfers_;
    send(FakeController::Answer("200 OK", "ETag: " + tag + "\r\n", jar_));
  }

  std::string jar_;
  std::atomic<int> transfers_ = 0;
  FakeController server_{
      [this](const std::string& path, const FakeController::Send& send) { Answer(path, send); }};
};

TEST_F(WorkerTest, TransfersAJarOnlyWhenItHasChanged) {
  REQUIRES_ROOT();
  VersionedController controller(CurrentAgentJar());
  const auto fetch = [&](const std::string& job) {
    Worker worker({{"urls", {controller.url()}}, {"cache_dir", cache()}, {"job", job}});
    const Json ready = worker.Result();
    EXPECT_EQ(ready["state"], "ready") << ready;
    EXPECT_EQ(ready["jar"]["generation"], "LAUNCHER_JENKINS") << ready;
    return ready["path"].get<std::string>();
  };
  const std::string first = fetch("default/a");
  EXPECT_EQ(fetch("default/a"), first);
  EXPECT_EQ(controller.transfers(), 1);
  // Over plain http nobody proved who answered: another job asks for itself.
  EXPECT_EQ(fetch("default/b"), first);
  EXPECT_EQ(controller.transfers(), 2);

  controller.Change(CurrentAgentJar() + "changed");
  const std::string second = fetch("default/a");
  EXPECT_NE(second, first);
  EXPECT_EQ(controller.transfers(), 3);
  EXPECT_EQ(fetch("default/a"), second);
  EXPECT_EQ(controller.transfers(), 3);

  // Damaged on the disk: not taken, though the controller would call it unchanged.
  ASSERT_EQ(::chmod(second.c_str(), 0644), 0);
  std::ofstream(second) << "damaged";
  EXPECT_EQ(fetch("default/a"), second);
  EXPECT_EQ(controller.transfers(), 4);
  ASSERT_OK_AND_ASSIGN(const std::string repaired, ReadFile(second, 1 << 20));
  EXPECT_EQ(repaired, CurrentAgentJar() + "changed");
}

TEST_F(WorkerTest, ASignedJarIsKeptWithoutItsSignature) {
  REQUIRES_ROOT();
  VersionedController controller(SignedAgentJar());
  const auto fetch = [&] {
    Worker worker({{"urls", {controller.url()}}, {"cache_dir", cache()}});
    const Json ready = worker.Result();
    EXPECT_EQ(ready["state"], "ready") << ready;
    return ready["path"].get<std::string>();
  };
  const std::string path = fetch();
  ASSERT_OK_AND_ASSIGN(const std::string kept, ReadFile(path, 1 << 20));
  EXPECT_THAT(kept, Not(HasSubstr("SIGNER")));
  EXPECT_THAT(path, HasSubstr(Sha256OfText(kept).value()));
  EXPECT_EQ(fetch(), path);
  EXPECT_EQ(controller.transfers(), 1);

  // What an earlier version of this program kept: as it came.
  const std::string as_it_came = absl::StrCat(Sha256OfText(SignedAgentJar()).value(), ".jar");
  std::ofstream(absl::StrCat(cache(), "/", as_it_came)) << SignedAgentJar();
  for (const auto& entry : std::filesystem::directory_iterator(cache())) {
    if (entry.path().extension() != ".origin") continue;
    ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(entry.path(), 1 << 20));
    Json origin = Json::parse(text);
    origin["sha256"] = as_it_came.substr(0, 64);
    std::ofstream(entry.path()) << origin.dump();
  }
  EXPECT_EQ(fetch(), path);
  EXPECT_EQ(controller.transfers(), 1);
}

TEST_F(WorkerTest, TheCacheIsBounded) {
  REQUIRES_ROOT();
  ASSERT_OK(MakeDirs(cache()));
  for (int i = 0; i < 400; ++i) {
    std::ofstream(absl::StrCat(cache(), "/", i, ".jar"));
    std::ofstream(absl::StrCat(cache(), "/", i, ".origin"));
  }
  VersionedController controller(CurrentAgentJar());
  Worker worker({{"urls", {controller.url()}}, {"cache_dir", cache()}});
  const Json ready = worker.Result();
  EXPECT_EQ(CachedFiles(), 32u + 256u);
  EXPECT_TRUE(std::filesystem::exists(ready["path"].get<std::string>()));
}

TEST_F(WorkerTest, TheRealOldAgentThroughASlowStart) {
  REQUIRES_ROOT();
  const std::string path = absl::StrCat(TEST_CACHE_DIR, "/maven/hudson-remoting-3.0.3.jar");
  REQUIRES_PATH(path);
  ASSERT_OK_AND_ASSIGN(const std::string jar, ReadFile(path, 1 << 20));
  std::atomic<bool> started = false;
  const FakeController controller([&](const std::string& p, const FakeController::Send& send) {
    if (!started.exchange(true)) {
      send(FakeController::Answer("503 Service Unavailable", "", ""));
    } else if (p == "/jnlpJars/remoting.jar") {
      send(FakeController::Answer("200 OK", "", jar));
    } else if (p == "/tcpSlaveAgentListener/") {
      send(FakeController::Answer("200 OK", "X-Hudson-JNLP-Port: 1\r\n", ""));
    } else {
      send(FakeController::Answer("404 Not Found", "", ""));
    }
  });
  Worker worker({{"urls", {controller.url()}}, {"cache_dir", cache()}});
  EXPECT_EQ(worker.NextLine(), Json({{"state", "waiting"},
                                     {"reason", controller.url() + ": 503 Service Unavailable"}}));
  const Json ready = worker.Result();
  EXPECT_EQ(ready["jar"]["generation"], "LAUNCHER_HUDSON") << ready;
  EXPECT_EQ(ready["jar"]["version"], "3.0.3");
}

TEST_F(WorkerTest, SomethingElseThanAnAgentIsNotKept) {
  REQUIRES_ROOT();
  const FakeController controller(Serve("<html>Sign in with your topsecret</html>"));
  Worker worker({{"urls", {controller.url()}}, {"cache_dir", cache()}});
  const Json result = worker.Result();
  EXPECT_EQ(result["state"], "failed");
  EXPECT_THAT(result["error"].get<std::string>(), HasSubstr("agent.jar: is not a jar file"));
  EXPECT_THAT(result["error"].get<std::string>(), ::testing::Not(HasSubstr("topsecret")));
  EXPECT_EQ(worker.ExitCode(), 1);
  EXPECT_EQ(CachedFiles(), 0u);
}

TEST_F(WorkerTest, TalksToTheControllerAsNobody) {
  REQUIRES_ROOT();
  std::promise<pid_t> started;
  const std::shared_future<pid_t> worker_pid = started.get_future().share();
  std::string child_status;
  const FakeController controller([&](const std::string& path, const FakeController::Send& send) {
    const pid_t child = ChildOf(worker_pid.get());
    child_status = ReadFile(absl::StrCat("/proc/", child, "/status")).value_or("no child");
    Serve(CurrentAgentJar())(path, send);
  });
  Worker worker({{"urls", {controller.url()}}, {"cache_dir", cache()}});
  started.set_value(worker.pid());
  ASSERT_EQ(worker.Result()["state"], "ready");
  EXPECT_THAT(child_status, HasSubstr("Uid:\t65534\t65534\t65534\t65534"));
  EXPECT_THAT(child_status, HasSubstr("CapEff:\t0000000000000000"));
  EXPECT_THAT(child_status, HasSubstr("CapPrm:\t0000000000000000"));
  EXPECT_THAT(child_status, HasSubstr("NoNewPrivs:\t1"));
}

TEST_F(WorkerTest, EndsWithItsStdin) {
  REQUIRES_ROOT();
  Worker worker({{"urls", {"http://127.0.0.1:9/"}}, {"cache_dir", cache()}});
  EXPECT_EQ(worker.NextLine(),
            Json({{"state", "waiting"}, {"reason", "http://127.0.0.1:9/: Connection refused"}}));
  worker.CloseStdin();
  EXPECT_EQ(worker.ExitCode(), 1);
  EXPECT_EQ(CachedFiles(), 0u);
}

TEST_F(WorkerTest, LooksAndFetchesInTheTasksNetworkWithItsResolver) {
  REQUIRES_ROOT();
  // A process in a network of its own, where not even loopback is up.
  Pipe ready = *MakePipe();
  const pid_t holder = ::fork();
  if (holder == 0) {
    const char ok = ::unshare(CLONE_NEWNET) == 0 ? 'y' : 'n';
    (void)!::write(ready.write.get(), &ok, 1);
    ::pause();
    ::_exit(0);
  }
  char ok = 0;
  ASSERT_EQ(::read(ready.read.get(), &ok, 1), 1);
  const FakeController controller(Serve(CurrentAgentJar()));
  std::ofstream(dir_.path() + "/resolv.conf") << kResolver;
  const std::string network = absl::StrCat("/proc/", holder, "/ns/net");
  {
    Worker preflight({{"urls", {controller.url()}}, {"network_namespace", network}}, "preflight");
    EXPECT_THAT(preflight.NextLine()["line"].get<std::string>(),
                AllOf(HasSubstr(controller.url()), Not(HasSubstr("HTTP 200"))));
    Worker worker({{"urls", {controller.url()}},
                   {"cache_dir", cache()},
                   {"network_namespace", network},
                   {"resolv_conf", dir_.path() + "/resolv.conf"}});
    const Json line = worker.NextLine();
    EXPECT_EQ(line["state"], "waiting") << line;
    EXPECT_TRUE(controller.requests().empty());
    // The child's view of the file changed, its parent's did not.
    EXPECT_EQ(ReadFile(absl::StrCat("/proc/", ChildOf(worker.pid()), "/root/etc/resolv.conf"))
                  .value_or("unreadable"),
              kResolver);
    EXPECT_NE(ReadFile(absl::StrCat("/proc/", worker.pid(), "/root/etc/resolv.conf"))
                  .value_or("unreadable"),
              kResolver);
  }
  ::kill(holder, SIGKILL);
  ::waitpid(holder, nullptr, 0);
  EXPECT_EQ(ok, 'y');
}

TEST_F(WorkerTest, InspectsAGivenJarInTheTasksRoot) {
  REQUIRES_ROOT();
  const std::string path = WriteJar(CurrentAgentJar());
  Worker worker({{"file", path}, {"root_pid", ::getpid()}});
  const Json ready = worker.Result();
  EXPECT_EQ(ready["state"], "ready") << ready;
  EXPECT_EQ(ready["path"], "");
  EXPECT_EQ(ready["jar"]["sha256"].get<std::string>().size(), 64u);
}

TEST_F(WorkerTest, GivenFileMustBeAPlainSmallFile) {
  REQUIRES_ROOT();
  const std::string fifo = dir_.path() + "/fifo", large = dir_.path() + "/large";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  std::ofstream(large) << "x";
  std::filesystem::resize_file(large, 65 << 20);
  const struct {
    std::string file;
    const char* error;
  } cases[] = {{fifo, "is not a regular file"},
               {large, "is longer than 64 MiB"},
               {"/dev/zero", "is not a regular file"},
               {dir_.path() + "/none", "No such file"}};
  for (const auto& c : cases) {
    Worker worker(Json{{"file", c.file}});
    const Json result = worker.Result();
    EXPECT_EQ(result["state"], "failed");
    EXPECT_THAT(result["error"].get<std::string>(), HasSubstr(c.error));
  }
}

TEST_F(WorkerTest, ACaFileHoldsACertificate) {
  REQUIRES_ROOT();
  const std::string file = dir_.path() + "/ca.pem";
  std::ofstream(file) << "topsecret";
  Worker worker({{"urls", {"https://127.0.0.1:9/"}}, {"cache_dir", cache()}, {"ca_file", file}});
  EXPECT_EQ(worker.Result()["error"],
            absl::StrCat("agent.ca_file: ", file, " holds no certificate in PEM form"));
}

TEST_F(WorkerTest, RefusesABadRequest) {
  Worker worker(Json::array());
  EXPECT_THAT(worker.Result()["error"].get<std::string>(), HasSubstr("JSON object"));
  EXPECT_EQ(worker.ExitCode(), 1);
}

}  // namespace
}  // namespace jenkins_agent
