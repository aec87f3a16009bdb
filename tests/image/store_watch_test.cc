// What a watch tells of the changes that another object, as it were another process, makes.
#include "driver/image/store_watch.h"

#include "driver/base/file.h"
#include "driver/image/store.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

class StoreWatchTest : public testing::Test {
 protected:
  StoreWatchTest() : store_(*Store::Open(path_)) {}

  struct Told {
    int changes = 0;
    bool alive = false;
  };
  Told Watching(const std::function<void()>& change) {
    Told told;
    const std::unique_ptr<EventLoop> loop = *EventLoop::Create();
    const auto watch = StoreWatch::Start(loop.get(), path_, [&] { ++told.changes; });
    if (!watch.ok()) return told;
    change();
    // The loop's second round is behind all that could be read in its first one.
    loop->Post([&] { loop->Post([&] { loop->Quit(); }); });
    loop->Run();
    told.alive = (*watch)->alive();
    return told;
  }
  void Keep(const std::string& name) {
    ASSERT_OK_AND_ASSIGN(const Staging staging, store_->Stage());
    ASSERT_OK(store_->Publish(staging, {.manifest = Digest::Of(name), .config = "{}", .layers = {}},
                              {.name = name, .manifest = Digest::Of(name)}));
  }

  const TempDir dir_;
  const std::string path_ = dir_.path() + "/images";
  const std::unique_ptr<Store> store_;
};

constexpr char kName[] = "r.example/a:1";

TEST_F(StoreWatchTest, TellsWhatIsKeptPinnedAndRemoved) {
  EXPECT_EQ(Watching([&] { Keep(kName); }).changes, 1);
  EXPECT_EQ(Watching([&] { EXPECT_OK(store_->Pin(kName)); }).changes, 1);
  EXPECT_EQ(Watching([&] { EXPECT_OK(store_->Unpin(kName)); }).changes, 1);
  EXPECT_EQ(Watching([&] { EXPECT_OK(store_->Remove(Digest::Of(kName))); }).changes, 1);
}

TEST_F(StoreWatchTest, IsSilentAboutWhatIsReadLeasedAndSwept) {
  Keep(kName);
  const Told told = Watching([&] {
    ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Store> other, Store::Open(path_));
    EXPECT_EQ(other->Refs().size(), 1u);
    EXPECT_OK(other->TakeLease({.task = "t", .manifest = Digest::Of(kName), .task_dir = "/x"}));
    EXPECT_OK(other->DropLease("t"));
    EXPECT_OK(other->Sweep());
  });
  EXPECT_EQ(told.changes, 0);
  EXPECT_TRUE(told.alive);
}

TEST_F(StoreWatchTest, EndsWithItsStore) {
  EXPECT_FALSE(Watching([&] { EXPECT_OK(RemoveTree(path_)); }).alive);
  const std::unique_ptr<EventLoop> loop = *EventLoop::Create();
  EXPECT_TRUE(absl::IsNotFound(StoreWatch::Start(loop.get(), path_, [] {}).status()));
}

}  // namespace
}  // namespace jenkins_agent
