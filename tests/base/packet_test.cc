#include "driver/base/packet.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "driver/base/file.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;

TEST(Packet, KeepsBoundariesAndPassesDescriptors) {
  ASSERT_OK_AND_ASSIGN(const SocketPair pair, MakeSocketPair(SOCK_SEQPACKET));
  ASSERT_OK_AND_ASSIGN(const Fd memfd, MakeSealedMemfd("x", "inside"));
  ASSERT_OK(SendPacket(pair.first.get(), "one", {memfd.get()}));
  ASSERT_OK(SendPacket(pair.first.get(), "two"));
  ASSERT_OK_AND_ASSIGN(const Packet one, ReceivePacket(pair.second.get()));
  EXPECT_EQ(one.data, "one");
  ASSERT_EQ(one.fds.size(), 1u);
  EXPECT_NE(::fcntl(one.fds[0].get(), F_GETFD) & FD_CLOEXEC, 0);
  ASSERT_OK_AND_ASSIGN(const std::string content, ReadAll(one.fds[0].get(), 100));
  EXPECT_EQ(content, "inside");
  ASSERT_OK_AND_ASSIGN(const Packet two, ReceivePacket(pair.second.get()));
  EXPECT_EQ(two.data, "two");
}

TEST(Packet, TellsEndOfStreamFromNothingThere) {
  ASSERT_OK_AND_ASSIGN(SocketPair pair, MakeSocketPair(SOCK_SEQPACKET, SOCK_NONBLOCK));
  EXPECT_THAT(ReceivePacket(pair.second.get()),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("nothing")));
  pair.first.Reset();
  EXPECT_THAT(ReceivePacket(pair.second.get()),
              StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("end")));
  EXPECT_THAT(SendPacket(pair.second.get(), "x"),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("gone")));
}

// The peer's close with unread packets in its queue is an error of the socket, and comes first.
TEST(Packet, TheLastWordsOfAPeerThatDidNotListenAreRead) {
  ASSERT_OK_AND_ASSIGN(SocketPair pair, MakeSocketPair(SOCK_SEQPACKET, SOCK_NONBLOCK));
  ASSERT_OK(SendPacket(pair.second.get(), "are you there?"));
  ASSERT_OK(SendPacket(pair.first.get(), "exit code 3"));
  pair.first.Reset();
  ASSERT_OK_AND_ASSIGN(const Packet packet, ReceivePacket(pair.second.get()));
  EXPECT_EQ(packet.data, "exit code 3");
  EXPECT_THAT(ReceivePacket(pair.second.get()),
              StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("end")));
}

// A reader that asks again and again meets every moment of a packet's arrival.
TEST(Packet, IsReceivedWholeWheneverItArrives) {
  constexpr int kPackets = 20'000;
  ASSERT_OK_AND_ASSIGN(SocketPair pair, MakeSocketPair(SOCK_SEQPACKET, SOCK_NONBLOCK));
  std::thread sender([socket = pair.first.get()] {
    for (int sent = 0; sent < kPackets;) {
      const absl::Status status = SendPacket(socket, std::string(100, 'x'));
      if (status.ok()) ++sent;
      if (!status.ok() && !absl::IsResourceExhausted(status)) return;
    }
  });
  int whole = 0;
  absl::Status failure;
  while (whole < kPackets && failure.ok()) {
    const absl::StatusOr<Packet> packet = ReceivePacket(pair.second.get());
    if (absl::IsResourceExhausted(packet.status())) continue;
    failure = packet.status();
    if (failure.ok() && packet->data.size() == 100) ++whole;
  }
  pair.second.Reset();
  sender.join();
  EXPECT_OK(failure);
  EXPECT_EQ(whole, kPackets);
}

// A reader may meet the last packet and the close just between its looking for the one and the
// other.
TEST(Packet, TheEndIsToldAfterTheLastPacketWhateverTheMoment) {
  constexpr int kRounds = 1'000;  // emulated, one in 35 was lost; elsewhere one in 10000
  ASSERT_OK_AND_ASSIGN(Pipe rounds, MakePipe());
  std::thread peer([next = rounds.read.get()] {
    for (int own; ::read(next, &own, sizeof(own)) == sizeof(own);) {
      const Fd closed_at_once(own);
      EXPECT_OK(SendPacket(own, "last"));
    }
  });
  int lost = 0;
  for (int round = 0; round < kRounds; ++round) {
    absl::StatusOr<SocketPair> pair = MakeSocketPair(SOCK_SEQPACKET, SOCK_NONBLOCK);
    EXPECT_OK(pair);
    const int own = pair->first.Release();
    EXPECT_EQ(::write(rounds.write.get(), &own, sizeof(own)), ssize_t{sizeof(own)});
    absl::StatusOr<Packet> packet;
    do {
      packet = ReceivePacket(pair->second.get());
    } while (absl::IsResourceExhausted(packet.status()));
    if (!packet.ok()) ++lost;
  }
  rounds.write.Reset();
  peer.join();
  EXPECT_EQ(lost, 0);
}

TEST(Packet, RefusesWhatIsTooLarge) {
  ASSERT_OK_AND_ASSIGN(const SocketPair pair, MakeSocketPair(SOCK_SEQPACKET));
  EXPECT_THAT(SendPacket(pair.first.get(), std::string(kMaxPacketBytes + 1, 'x')),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("too large")));
}

TEST(Packet, ListensInADirectoryWithAVeryLongName) {
  const TempDir dir;
  const std::string deep = dir.path() + "/" + std::string(120, 'd');
  ASSERT_OK(MakeDirs(deep));
  ASSERT_OK_AND_ASSIGN(const Fd dir_fd, OpenFile(deep, O_RDONLY | O_DIRECTORY));
  ASSERT_OK_AND_ASSIGN(const Fd old_listener, ListenPacket(dir_fd.get(), "s"));
  ASSERT_OK_AND_ASSIGN(const Fd listener, ListenPacket(dir_fd.get(), "s"));
  struct stat info;
  ASSERT_EQ(::stat((deep + "/s").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  ASSERT_OK_AND_ASSIGN(const Fd client, ConnectPacket(dir_fd.get(), "s"));
  const Fd accepted(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_TRUE(accepted.valid());
  ASSERT_OK_AND_ASSIGN(const uid_t uid, PeerUid(accepted.get()));
  EXPECT_EQ(uid, ::geteuid());
}

TEST(Packet, AListenerThatAcceptsNobodyIsNotWaitedForWithoutLimit) {
  const TempDir dir;
  ASSERT_OK_AND_ASSIGN(const Fd dir_fd, OpenFile(dir.path(), O_RDONLY | O_DIRECTORY));
  ASSERT_OK_AND_ASSIGN(const Fd listener, ListenPacket(dir_fd.get(), "s"));
  std::vector<Fd> waiting;
  absl::Status status;
  while (status.ok() && waiting.size() < 1000) {
    absl::StatusOr<Fd> next = ConnectPacket(dir_fd.get(), "s", std::chrono::milliseconds(10));
    status = next.status();
    if (next.ok()) waiting.push_back(*std::move(next));
  }
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("connect s")));
  const Fd accepted(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  EXPECT_OK(ConnectPacket(dir_fd.get(), "s"));
}

}  // namespace
}  // namespace jenkins_agent
