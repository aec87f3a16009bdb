#include "driver/supervisor/output.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>

#include "driver/base/file.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

std::string ReadNow(const Fd& fd) {
  char buffer[100];
  const ssize_t size = ::read(fd.get(), buffer, sizeof(buffer));
  return std::string(buffer, size > 0 ? size : 0);
}

class OutputTest : public testing::Test {
 protected:
  void SetUp() override {
    ::signal(SIGPIPE, SIG_IGN);  // as the supervisor does
    ASSERT_OK_AND_ASSIGN(loop_, EventLoop::Create());
    ASSERT_EQ(::mkfifo(Fifo().c_str(), 0600), 0);
    ASSERT_OK_AND_ASSIGN(pipe_, MakePipe());
  }
  std::string Fifo() const { return dir_.path() + "/fifo"; }

  std::unique_ptr<Output> Open(const std::string& path,
                               std::chrono::milliseconds patience = Output::kPatience) {
    auto output = std::make_unique<Output>(
        loop_.get(), path, [this](absl::string_view bytes) { seen_ += std::string(bytes); },
        patience);
    EXPECT_OK(output->OpenSink());
    EXPECT_OK(output->Start(std::move(pipe_.read), [this] { loop_->Quit(); }));
    return output;
  }
  // Runs the loop until the output has ended.
  void Run() {
    const auto timeout = loop_->After(std::chrono::seconds(20), [this] {
      ADD_FAILURE() << "the output did not end";
      loop_->Quit();
    });
    loop_->Run();
    loop_->Cancel(timeout);
  }

  TempDir dir_;
  std::unique_ptr<EventLoop> loop_;
  Pipe pipe_;
  std::string seen_;
};

TEST_F(OutputTest, CopiesToAFileAndToTheReader) {
  ASSERT_OK(WriteFileAtomic(dir_.path() + "/log", "before\n"));
  auto output = Open(dir_.path() + "/log");
  ASSERT_OK(WriteAll(pipe_.write.get(), "hello\n"));
  pipe_.write.Reset();
  Run();
  EXPECT_EQ(seen_, "hello\n");
  EXPECT_EQ(*ReadFile(dir_.path() + "/log"), "before\nhello\n");
}

TEST_F(OutputTest, WorksWithDevNull) {
  auto output = Open("/dev/null");
  ASSERT_OK(WriteAll(pipe_.write.get(), std::string(60000, 'x')));
  pipe_.write.Reset();
  Run();
  EXPECT_EQ(seen_.size(), 60000u);
}

TEST_F(OutputTest, WaitsForAFifosFirstReader) {
  auto output = Open(Fifo());
  ASSERT_OK(WriteAll(pipe_.write.get(), "early\n"));
  pipe_.write.Reset();
  Fd reader;
  loop_->After(std::chrono::milliseconds(100),
               [&] { reader = OpenFile(Fifo(), O_RDONLY | O_NONBLOCK).value(); });
  Run();
  EXPECT_EQ(ReadNow(reader), "early\n");
}

TEST_F(OutputTest, FindsTheNextReaderAfterOneDied) {
  ASSERT_OK_AND_ASSIGN(Fd reader, OpenFile(Fifo(), O_RDONLY | O_NONBLOCK));
  auto output = Open(Fifo());
  reader.Reset();
  ASSERT_OK(WriteAll(pipe_.write.get(), "for the next\n"));
  pipe_.write.Reset();
  loop_->After(std::chrono::milliseconds(100),
               [&] { reader = OpenFile(Fifo(), O_RDONLY | O_NONBLOCK).value(); });
  Run();
  EXPECT_EQ(ReadNow(reader), "for the next\n");
}

TEST_F(OutputTest, ASlowReaderGetsEverything) {
  ASSERT_OK_AND_ASSIGN(const Fd reader, OpenFile(Fifo(), O_RDONLY | O_NONBLOCK));
  auto output = Open(Fifo());
  constexpr size_t kBytes = 4 << 20;
  size_t written = 0;
  ASSERT_EQ(::fcntl(pipe_.write.get(), F_SETFL, O_NONBLOCK), 0);
  const std::string block(4096, 'x');
  ASSERT_OK(loop_->Watch(pipe_.write.get(), EPOLLOUT, [&](uint32_t) {
    const ssize_t size = ::write(pipe_.write.get(), block.data(), block.size());
    if (size > 0) written += size;
    if (written < kBytes) return;
    loop_->Unwatch(pipe_.write.get());
    pipe_.write.Reset();
  }));
  size_t received = 0;
  std::function<void()> read_some = [&] {
    char buffer[65536];
    const ssize_t size = ::read(reader.get(), buffer, sizeof(buffer));
    if (size > 0) received += size;
    loop_->After(std::chrono::milliseconds(1), read_some);
  };
  read_some();
  Run();
  char rest[1 << 16];
  for (ssize_t size; (size = ::read(reader.get(), rest, sizeof(rest))) > 0;) received += size;
  EXPECT_EQ(received, written);
  EXPECT_EQ(seen_.size(), written);
}

TEST_F(OutputTest, AStalledReaderStopsNobodyAndIsToldWhatItMissed) {
  ASSERT_OK_AND_ASSIGN(const Fd reader, OpenFile(Fifo(), O_RDONLY | O_NONBLOCK));
  auto output = Open(Fifo(), std::chrono::milliseconds(20));
  ASSERT_EQ(::fcntl(pipe_.write.get(), F_SETFL, O_NONBLOCK), 0);
  uint64_t dropped = 0;
  output->SetOnDropped([&dropped](uint64_t bytes) { dropped += bytes; });
  constexpr size_t kBytes = 1 << 20;
  const std::string block(4096, 'x');
  size_t written = 0;
  std::string received;
  std::function<void()> read_until_marker = [&] {
    char buffer[65536];
    const ssize_t size = ::read(reader.get(), buffer, sizeof(buffer));
    if (size > 0) received.append(buffer, size);
    if (received.ends_with("]\n")) return pipe_.write.Reset();
    loop_->After(std::chrono::milliseconds(1), read_until_marker);
  };
  ASSERT_OK(loop_->Watch(pipe_.write.get(), EPOLLOUT, [&](uint32_t) {
    const ssize_t size = ::write(pipe_.write.get(), block.data(), block.size());
    if (size > 0) written += size;
    if (written < kBytes) return;
    loop_->Unwatch(pipe_.write.get());
    loop_->After(std::chrono::milliseconds(1), read_until_marker);
  }));
  Run();
  EXPECT_EQ(seen_.size(), written);  // the phases were followed all the time
  EXPECT_LT(received.size(), written);
  const size_t marker = received.find("\n[nomad-driver-jenkins-agent: ");
  ASSERT_NE(marker, std::string::npos);
  EXPECT_NE(received.find(std::to_string(written - marker) + " bytes of output dropped", marker),
            std::string::npos)
      << received.substr(marker);
  EXPECT_EQ(dropped, written - marker);
}

TEST_F(OutputTest, HeldBackItReadsNothingUntilReleasedOrDrained) {
  auto output = Open("/dev/null");
  output->HoldBack(true);
  ASSERT_OK(WriteAll(pipe_.write.get(), "early\n"));
  std::string before;
  std::string drained;
  loop_->After(std::chrono::milliseconds(50), [&] {
    before = seen_;
    output->Drain();
    drained = seen_;
    ASSERT_OK(WriteAll(pipe_.write.get(), "late\n"));
    pipe_.write.Reset();
    output->HoldBack(false);
  });
  Run();
  EXPECT_EQ(before, "");
  EXPECT_EQ(drained, "early\n");
  EXPECT_EQ(seen_, "early\nlate\n");
}

TEST_F(OutputTest, AMissingSinkIsAnError) {
  Output output(loop_.get(), dir_.path() + "/missing", nullptr);
  EXPECT_THAT(output.OpenSink(),
              StatusIs(absl::StatusCode::kNotFound, testing::HasSubstr("missing")));
}

}  // namespace
}  // namespace jenkins_agent
