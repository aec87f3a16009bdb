// A task's output with a real supervisor, both ways: through Nomad's FIFO to a log helper, and into
// rotated files of our own.
#include <fcntl.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "tests/supervisor/harness.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using testing::HasSubstr;

constexpr size_t kReadLimit = 256 << 20;
constexpr char kMarker[] = "[nomad-driver-jenkins-agent: ";

std::string RandomBytes(size_t size) {
  std::mt19937_64 generator(size);
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; i += 8) {
    const uint64_t word = generator();
    bytes.replace(i, std::min<size_t>(8, size - i), reinterpret_cast<const char*>(&word),
                  std::min<size_t>(8, size - i));
  }
  return bytes;
}

// Nomad's log helper: reads one FIFO to its end, in a thread. Stop() is its death.
class LogHelper {
 public:
  explicit LogHelper(const std::string& fifo)
      : fd_(OpenFile(fifo, O_RDONLY | O_NONBLOCK).value()), thread_([this] { Read(); }) {}
  ~LogHelper() { Stop(); }

  void Stop() {
    if (!thread_.joinable()) return;
    stop_ = true;
    thread_.join();
    fd_.Reset();
  }
  size_t received() const { return received_; }
  // Only after Stop().
  const std::string& text() const { return text_; }

 private:
  void Read() {
    std::string buffer(64 << 10, '\0');
    for (;;) {
      const bool stopping = stop_;
      const ssize_t size = ::read(fd_.get(), buffer.data(), buffer.size());
      if (size > 0) {
        text_.append(buffer, 0, size);
        received_ += size;
      } else if (stopping) {
        return;  // nothing more in the FIFO
      } else {
        // A FIFO whose writer is gone polls as ready for ever.
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    }
  }

  Fd fd_;
  std::string text_;
  std::atomic<size_t> received_ = 0;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

class LogsTest : public SupervisorTest {
 protected:
  void SetUp() override {
    SupervisorTest::SetUp();
    if (IsSkipped()) return;
    ASSERT_OK(MakeDirs(Logs()));
    for (const char* name : {"out.fifo", "err.fifo"}) {
      ASSERT_EQ(::mkfifo(Fifo(name).c_str(), 0600), 0);
    }
  }
  void TearDown() override {
    SupervisorTest::TearDown();
    if (!mounted_) return;
    EXPECT_EQ(::umount2(Logs().c_str(), MNT_DETACH), 0);
  }

  std::string Logs() const { return directory() + "/alloc/logs"; }
  std::string LogFile(const std::string& name) const { return Logs() + "/" + name; }
  std::string Fifo(const std::string& name) const { return directory() + "/" + name; }

  pb::LaunchSpec WithFifos(pb::LaunchSpec spec) const {
    spec.mutable_output()->set_stdout_path(Fifo("out.fifo"));
    spec.mutable_output()->set_stderr_path(Fifo("err.fifo"));
    return spec;
  }
  // The FIFOs of the paths do not exist then.
  pb::LaunchSpec WithFiles(pb::LaunchSpec spec, uint64_t max_file_bytes = 10 << 20,
                           uint32_t max_files = 100) const {
    spec.mutable_output()->set_stdout_path(directory() + "/none.fifo");
    spec.mutable_output()->set_stderr_path(directory() + "/none.fifo");
    pb::LogFiles& files = *spec.mutable_output()->mutable_files();
    files.set_root(directory());
    files.set_directory("alloc/logs");
    files.set_stdout_name("t.stdout");
    files.set_stderr_name("t.stderr");
    files.set_max_files(max_files);
    files.set_max_file_bytes(max_file_bytes);
    return spec;
  }

  // What is in base.0, base.1, ..., from the lowest that is there, as `nomad alloc logs` shows it.
  std::string FromFiles(const std::string& base, std::vector<size_t>* sizes = nullptr) const {
    std::set<std::pair<size_t, std::string>> names;  // shorter numbers are lower
    for (const auto& entry : std::filesystem::directory_iterator(Logs())) {
      const std::string name = entry.path().filename();
      if (!entry.is_symlink() && absl::StartsWith(name, base + ".")) {
        names.insert({name.size(), name});
      }
    }
    std::string text;
    for (const auto& [length, name] : names) {
      const std::string content = ReadFile(LogFile(name), kReadLimit).value();
      text += content;
      if (sizes != nullptr) sizes->push_back(content.size());
    }
    return text;
  }

  void MountSmallDisk() {
    ASSERT_EQ(::mount("logs_test", Logs().c_str(), "tmpfs", 0, "size=256k"), 0);
    mounted_ = true;
  }
  void ExpectExit(int code) {
    const auto exit = watcher().WaitExit();
    ASSERT_TRUE(exit);
    EXPECT_EQ(exit->exit_code(), code) << exit->message();
  }
  // Of a payload that wrote `bytes` zeros, and "after" when there was room again. What it wrote
  // last of the zeros may have found room already, behind the marker.
  static void ExpectAllZerosAccountedFor(const std::string& text, size_t bytes) {
    EXPECT_THAT(text, testing::EndsWith("after\n"));
    const auto stored = static_cast<size_t>(std::count(text.begin(), text.end(), '\0'));
    EXPECT_LT(stored, bytes);
    size_t dropped = 0;
    for (size_t at = 0; (at = text.find(kMarker, at)) != std::string::npos;) {
      at += sizeof(kMarker) - 1;
      dropped += std::stoul(text.substr(at, 20));
    }
    EXPECT_EQ(stored + dropped, bytes);
  }
  static std::string UntilThere(const std::string& file) {
    return absl::StrCat("until [ -e ", file, " ]; do sleep 0.02; done; ");
  }
  void Touch(const std::string& file) { ASSERT_OK(WriteFileAtomic(Local(file), "", 0644)); }

 private:
  bool mounted_ = false;
};

// ---- both ways: what goes in comes out ----

enum class Way { kNomad, kDriver };

class EveryWay : public LogsTest, public testing::WithParamInterface<Way> {
 protected:
  struct Received {
    std::string out;
    std::string err;
  };
  // Runs to the end and returns what a reader of the logs sees.
  Received Run(const pb::LaunchSpec& spec) {
    if (GetParam() == Way::kDriver) {
      EXPECT_OK(Start(WithFiles(spec)));
      ExpectExit(0);
      return {FromFiles("t.stdout"), FromFiles("t.stderr")};
    }
    LogHelper out(Fifo("out.fifo"));
    LogHelper err(Fifo("err.fifo"));
    EXPECT_OK(Start(WithFifos(spec)));
    ExpectExit(0);
    out.Stop();
    err.Stop();
    return {out.text(), err.text()};
  }
};

INSTANTIATE_TEST_SUITE_P(Logs, EveryWay, testing::Values(Way::kNomad, Way::kDriver),
                         [](const testing::TestParamInfo<Way>& way) {
                           return way.param == Way::kNomad ? "Nomad" : "Driver";
                         });

TEST_P(EveryWay, BinaryOutputArrivesByteForByte) {
  const std::string out = RandomBytes(3 << 20);
  const std::string err = RandomBytes(1 << 20);
  ASSERT_OK(WriteFileAtomic(Local("out"), out, 0644));
  ASSERT_OK(WriteFileAtomic(Local("err"), err, 0644));
  const Received received = Run(Shell("cat err >&2 & cat out; wait"));
  EXPECT_TRUE(received.out == out) << received.out.size();
  EXPECT_TRUE(received.err == err) << received.err.size();
}

TEST_P(EveryWay, ABurstArrivesWhole) {
  const std::string burst = RandomBytes(100 << 20);
  ASSERT_OK(WriteFileAtomic(Local("burst"), burst, 0644));
  const Received received = Run(Shell("cat burst"));
  EXPECT_TRUE(received.out == burst) << received.out.size();
  EXPECT_EQ(received.err, "");
}

TEST_P(EveryWay, LinesWithoutEndArriveAsTheyAre) {
  const Received received =
      Run(Shell("head -c 5000000 /dev/zero | tr '\\0' x; printf last; printf none >&2"));
  EXPECT_TRUE(received.out == std::string(5'000'000, 'x') + "last") << received.out.size();
  EXPECT_EQ(received.err, "none");
}

TEST_P(EveryWay, NoOutputIsAnEmptyLog) {
  const Received received = Run(Shell("exit 0"));
  EXPECT_EQ(received.out, "");
  EXPECT_EQ(received.err, "");
  if (GetParam() == Way::kDriver) {
    EXPECT_TRUE(PathExists(LogFile("t.stdout.0")));
    EXPECT_TRUE(PathExists(LogFile("t.stderr.0")));
  }
}

TEST_F(LogsTest, ATaskWithoutLogsRuns) {
  pb::LaunchSpec spec = Shell("echo unseen; echo unseen >&2; exit 3");
  spec.mutable_output()->set_stdout_path("/dev/null");
  spec.mutable_output()->set_stderr_path("/dev/null");
  ASSERT_OK(Start(spec));
  ExpectExit(3);
}

// ---- Nomad's log helper ----

TEST_F(LogsTest, ASlowHelperGetsEverything) {
  const std::string text = RandomBytes(1 << 20);
  ASSERT_OK(WriteFileAtomic(Local("text"), text, 0644));
  ASSERT_OK_AND_ASSIGN(const Fd reader, OpenFile(Fifo("out.fifo"), O_RDONLY | O_NONBLOCK));
  LogHelper err(Fifo("err.fifo"));
  ASSERT_OK(Start(WithFifos(Shell("cat text; touch written; sleep 1000"))));
  std::string received;
  std::string buffer(4 << 10, '\0');
  while (received.size() < text.size()) {
    pollfd ready = {reader.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&ready, 1, 30'000), 1);
    const ssize_t size = ::read(reader.get(), buffer.data(), buffer.size());
    ASSERT_GT(size, 0);
    // What fits nowhere else holds the payload back: its pipe, the FIFO, one buffer between them.
    EXPECT_TRUE(!received.empty() || !PathExists(Local("written")));
    received.append(buffer, 0, size);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_TRUE(received == text);
  EXPECT_OK(watcher().Stop(SIGKILL, kTestDeadline));
  EXPECT_TRUE(watcher().WaitExit());
}

TEST_F(LogsTest, AStalledHelperHoldsThePayloadBackForItsPatienceOnly) {
  constexpr size_t kBytes = 1 << 20;
  ASSERT_OK_AND_ASSIGN(const Fd stalled, OpenFile(Fifo("out.fifo"), O_RDONLY | O_NONBLOCK));
  LogHelper err(Fifo("err.fifo"));
  pb::LaunchSpec spec = WithFifos(Shell(absl::StrCat("head -c ", kBytes, " /dev/zero; touch done; ",
                                                     UntilThere("go"), "echo after")));
  spec.mutable_output()->set_patience_ms(50);
  ASSERT_OK(Start(spec));
  ASSERT_TRUE(Eventually([&] { return PathExists(Local("done")); }));
  // The helper reads again.
  LogHelper out(Fifo("out.fifo"));
  ASSERT_TRUE(Eventually([&] { return out.received() > 64 << 10; }));
  Touch("go");
  ExpectExit(0);
  out.Stop();
  EXPECT_THAT(out.text(),
              HasSubstr(" bytes of output dropped: the log was not read for too long]"));
  ExpectAllZerosAccountedFor(out.text(), kBytes);
}

TEST_F(LogsTest, AHelperThatDiedHasASuccessor) {
  auto first = std::make_unique<LogHelper>(Fifo("out.fifo"));
  LogHelper err(Fifo("err.fifo"));
  ASSERT_OK(
      Start(WithFifos(Shell(absl::StrCat("echo one; ", UntilThere("go"), "echo two; touch done; ",
                                         UntilThere("end"), "echo three")))));
  ASSERT_TRUE(Eventually([&] { return first->received() == 4; }));
  first->Stop();
  Touch("go");
  ASSERT_TRUE(Eventually([&] { return PathExists(Local("done")); }));
  LogHelper second(Fifo("out.fifo"));
  ASSERT_TRUE(Eventually([&] { return second.received() == 4; }));
  Touch("end");
  ExpectExit(0);
  second.Stop();
  EXPECT_EQ(first->text(), "one\n");
  EXPECT_EQ(second.text(), "two\nthree\n");
}

TEST_F(LogsTest, APlantedFifoIsRefused) {
  ASSERT_EQ(::unlink(Fifo("out.fifo").c_str()), 0);
  ASSERT_EQ(::symlink((directory() + "/stdout").c_str(), Fifo("out.fifo").c_str()), 0);
  EXPECT_THAT(Start(WithFifos(Shell("exit 0"))),
              StatusIs(testing::_, HasSubstr("levels of symbolic links")));
}

// ---- files of our own ----

TEST_F(LogsTest, FilesAreRotatedAtTheirSizeAndTheOldestGoes) {
  // Lines of 100 bytes, ten to a file.
  ASSERT_OK(Start(WithFiles(Shell("for i in $(seq 100 154); do printf '%099d\\n' $i; done"),
                            /*max_file_bytes=*/1000, /*max_files=*/3)));
  ExpectExit(0);
  std::vector<size_t> sizes;
  const std::string text = FromFiles("t.stdout", &sizes);
  EXPECT_THAT(sizes, testing::ElementsAre(1000, 1000, 500));
  EXPECT_TRUE(PathExists(LogFile("t.stdout.3")));
  EXPECT_TRUE(PathExists(LogFile("t.stdout.5")));
  EXPECT_FALSE(PathExists(LogFile("t.stdout.2")));
  EXPECT_THAT(text, testing::EndsWith("000154\n"));
  EXPECT_EQ(text.substr(0, 100), std::string(96, '0') + "130\n");
}

TEST_F(LogsTest, ARestartedTaskGoesOnInTheLastFile) {
  ASSERT_OK(Start(WithFiles(Shell("echo first; echo e1 >&2"), 10)));
  ExpectExit(0);
  DropConnection();
  ASSERT_OK(RemoveTree(TaskDir()));
  ASSERT_OK(MakeDirs(TaskDir()));
  ASSERT_OK(Start(WithFiles(Shell("echo abc; echo second; echo e2 >&2"), 10)));
  ExpectExit(0);
  EXPECT_EQ(ReadFile(LogFile("t.stdout.0")).value(), "first\nabc\n");
  EXPECT_EQ(ReadFile(LogFile("t.stdout.1")).value(), "second\n");
  EXPECT_EQ(ReadFile(LogFile("t.stderr.0")).value(), "e1\ne2\n");
}

TEST_F(LogsTest, AFullDiskStopsNothingAndIsTold) {
  constexpr size_t kBytes = 1 << 20;
  MountSmallDisk();
  ASSERT_OK(WriteFileAtomic(LogFile("ballast"), std::string(200 << 10, 'b')));
  ASSERT_OK(Start(WithFiles(Shell(absl::StrCat("head -c ", kBytes, " /dev/zero; touch done; ",
                                               UntilThere("go"), "echo after; exit 4")))));
  ASSERT_TRUE(Eventually([&] { return PathExists(Local("done")); }));
  ASSERT_EQ(::unlink(LogFile("ballast").c_str()), 0);
  Touch("go");
  ExpectExit(4);
  const std::string text = FromFiles("t.stdout");
  EXPECT_THAT(text, HasSubstr("No space left on device]\n"));
  ExpectAllZerosAccountedFor(text, kBytes);
}

TEST_F(LogsTest, ADeletedFileAndADeletedDirectoryStopNothing) {
  ASSERT_OK(Start(WithFiles(
      Shell(absl::StrCat("echo one; ", UntilThere("go1"), "echo two; ", UntilThere("go2"),
                         "echo three; touch said; ", UntilThere("go3"), "echo four; exit 5")))));
  ASSERT_TRUE(Eventually([&] { return FromFiles("t.stdout") == "one\n"; }));
  ASSERT_EQ(::unlink(LogFile("t.stdout.0").c_str()), 0);
  Touch("go1");
  ASSERT_TRUE(Eventually([&] { return FromFiles("t.stdout") == "two\n"; }));
  std::filesystem::remove_all(Logs());
  Touch("go2");
  ASSERT_TRUE(Eventually([&] { return PathExists(Local("said")); }));
  ASSERT_OK(MakeDirs(Logs()));
  Touch("go3");
  ExpectExit(5);
  EXPECT_THAT(FromFiles("t.stdout"), testing::EndsWith("four\n"));
}

TEST_F(LogsTest, SymlinksThatAJobPlantedAreNotFollowed) {
  const std::string victim = directory() + "/victim";
  ASSERT_OK(WriteFileAtomic(victim, "untouched"));
  ASSERT_EQ(::symlink(victim.c_str(), LogFile("t.stdout.0").c_str()), 0);
  ASSERT_EQ(::mkfifo(LogFile("t.stderr.0").c_str(), 0666), 0);
  ASSERT_OK(Start(WithFiles(Shell("echo out; echo err >&2"))));
  ExpectExit(0);
  EXPECT_EQ(*ReadFile(victim), "untouched");
  EXPECT_EQ(ReadFile(LogFile("t.stdout.1")).value(), "out\n");
  EXPECT_EQ(ReadFile(LogFile("t.stderr.1")).value(), "err\n");

  ASSERT_OK(RemoveTree(Logs()));
  ASSERT_OK(MakeDirs(directory() + "/elsewhere"));
  ASSERT_EQ(::symlink("../elsewhere", Logs().c_str()), 0);
  DropConnection();
  ASSERT_OK(RemoveTree(TaskDir()));
  ASSERT_OK(MakeDirs(TaskDir()));
  EXPECT_THAT(Start(WithFiles(Shell("echo out"))),
              StatusIs(testing::_, HasSubstr("stdout: log directory: ")));
  EXPECT_TRUE(std::filesystem::is_empty(directory() + "/elsewhere"));
}

}  // namespace
}  // namespace jenkins_agent
