#include "driver/image/store.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include <filesystem>
#include <random>
#include <set>
#include <thread>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

Digest Id(absl::string_view text) { return Digest::Of(text); }

size_t Count(const std::string& dir) {
  return std::distance(std::filesystem::directory_iterator(dir), {});
}

// Publishes an image of layers that are named by their content, as a pull does: only what is
// missing is made.
absl::Status Pull(const Store& store, const std::string& name,
                  const std::vector<std::string>& layers, size_t layer_bytes = 5000) {
  ASSIGN_OR_RETURN(const Staging staging, store.Stage());
  StoredImage image = {.manifest = Id(name), .config = "{}", .layers = {}, .pulled_at = 5};
  for (const std::string& content : layers) {
    const std::string key = LayerKey(Id(content));
    image.layers.push_back({.key = key, .bytes = static_cast<int64_t>(layer_bytes)});
    if (store.HasLayer(key)) continue;
    ASSIGN_OR_RETURN(const Fd layer, staging.MakeLayer(key));
    for (const char* file : {"a", "b"}) {
      ASSIGN_OR_RETURN(const Fd fd, OpenAt(layer.get(), file, O_WRONLY | O_CREAT, 0644));
      RETURN_IF_ERROR(WriteAll(fd.get(), content + std::string(layer_bytes, 'x')));
    }
  }
  return store.Publish(staging, image, {.name = name, .manifest = Id(name), .resolved_at = 6});
}

// Each image that the store shows is whole, and nothing else lies around.
void ExpectConsistent(const Store& store, size_t layer_bytes = 5000) {
  std::set<std::string> wanted;
  for (const StoredImage& image : store.Images()) {
    for (const StoredLayer& layer : image.layers) {
      wanted.insert(layer.key);
      for (const char* file : {"/a", "/b"}) {
        const auto content = ReadFile(store.LayerPath(layer.key) + file);
        ASSERT_OK(content);
        EXPECT_EQ(Id(content->substr(0, content->size() - layer_bytes)).hex(), layer.key);
      }
    }
  }
  for (const StoredRef& ref : store.Refs()) EXPECT_TRUE(store.FindImage(ref.manifest).has_value());
  EXPECT_EQ(Count(store.dir() + "/layers"), wanted.size());
  EXPECT_EQ(Count(store.dir() + "/tmp"), 0u);
  EXPECT_EQ(Count(store.dir() + "/trash"), 0u);
}

class StoreTest : public testing::Test {
 protected:
  StoreTest() : store_(*Store::Open(dir_.path() + "/images")) {}

  TempDir dir_;
  std::unique_ptr<Store> store_;
};

TEST_F(StoreTest, APublishedImageIsFoundByNameAndDigestAlsoByTheNextProcess) {
  ASSERT_OK(Pull(*store_, "r/a:1", {"base", "top"}));
  const std::unique_ptr<Store> again = *Store::Open(dir_.path() + "/images");
  const auto ref = again->FindRef("r/a:1");
  ASSERT_TRUE(ref.has_value());
  EXPECT_EQ(ref->resolved_at, 6);
  const auto image = again->FindImage(ref->manifest);
  ASSERT_TRUE(image.has_value());
  EXPECT_EQ(image->config, "{}");
  EXPECT_EQ(image->pulled_at, 5);
  EXPECT_THAT(image->layers, SizeIs(2));
  ExpectConsistent(*again);
}

TEST_F(StoreTest, WhatIsNotPublishedLeavesNothing) {
  {
    const Staging staging = *store_->Stage();
    ASSERT_OK(staging.MakeLayer(LayerKey(Id("x"))));
    EXPECT_EQ(Count(store_->dir() + "/tmp"), 1u);
    // A sweep does not touch what a living pull is making.
    ASSERT_OK(store_->Sweep());
    EXPECT_EQ(Count(store_->dir() + "/tmp"), 1u);
  }
  ExpectConsistent(*store_);
}

TEST_F(StoreTest, ASharedLayerStaysUntilItsLastImageGoes) {
  ASSERT_OK(Pull(*store_, "a", {"base", "a"}));
  ASSERT_OK(Pull(*store_, "b", {"base", "b"}));
  EXPECT_EQ(*store_->Remove(Id("a")), 5000);
  EXPECT_TRUE(store_->HasLayer(LayerKey(Id("base"))));
  EXPECT_FALSE(store_->HasLayer(LayerKey(Id("a"))));
  ExpectConsistent(*store_);
  EXPECT_EQ(*store_->Remove(Id("b")), 10000);
  EXPECT_THAT(store_->Images(), IsEmpty());
  EXPECT_THAT(store_->Refs(), IsEmpty());
  ExpectConsistent(*store_);
  EXPECT_THAT(store_->Remove(Id("b")),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("not here")));
}

TEST_F(StoreTest, AnImageWithALeaseIsNotRemovedAndItsUseIsRemembered) {
  ASSERT_OK(Pull(*store_, "a", {"base"}));
  EXPECT_FALSE(HasLease(store_->dir(), "alloc/task/../1"));
  ASSERT_OK(store_->TakeLease({.task = "alloc/task/../1", .manifest = Id("a")}));
  EXPECT_TRUE(HasLease(store_->dir(), "alloc/task/../1"));
  EXPECT_THAT(store_->Remove(Id("a")),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("alloc/task/../1")));
  const std::string record = store_->dir() + "/images/" + Id("a").hex() + ".json";
  const timespec long_ago[2] = {{1000, 0}, {1000, 0}};
  ASSERT_EQ(::utimensat(AT_FDCWD, record.c_str(), long_ago, 0), 0);
  EXPECT_EQ(store_->Images()[0].last_used, 1000);
  ASSERT_OK(store_->DropLease("alloc/task/../1"));
  EXPECT_GT(store_->Images()[0].last_used, 1000);
  EXPECT_FALSE(HasLease(store_->dir(), "alloc/task/../1"));
  ASSERT_OK(store_->DropLease("alloc/task/../1"));
  EXPECT_OK(store_->Remove(Id("a")));
  EXPECT_THAT(store_->TakeLease({.task = "t", .manifest = Id("a")}),
              StatusIs(absl::StatusCode::kNotFound, testing::_));
}

TEST_F(StoreTest, APullWhoseLayerWasRemovedMeanwhileIsToldToStartAgain) {
  ASSERT_OK(Pull(*store_, "a", {"base"}));
  const Staging staging = *store_->Stage();
  StoredImage image = {.manifest = Id("b"), .config = "{}", .layers = {}};
  image.layers = {{.key = LayerKey(Id("base")), .bytes = 1}};
  ASSERT_OK(store_->Remove(Id("a")));
  EXPECT_THAT(store_->Publish(staging, image, {.name = "b", .manifest = Id("b")}),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("removed during the pull")));
  EXPECT_FALSE(store_->FindImage(Id("b")).has_value());
}

TEST_F(StoreTest, PinsAreNames) {
  ASSERT_OK(store_->Pin("r/a:1"));
  ASSERT_OK(store_->Pin("r/a:1"));
  EXPECT_THAT(store_->Pins(), ElementsAre("r/a:1"));
  ASSERT_OK(store_->Unpin("r/a:1"));
  EXPECT_THAT(store_->Pins(), IsEmpty());
  EXPECT_THAT(store_->Unpin("r/a:1"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("not pinned")));
}

TEST_F(StoreTest, AnotherVersionIsRefusedAndLeftAlone) {
  ASSERT_OK(WriteFileAtomic(store_->dir() + "/VERSION", "2\n"));
  EXPECT_THAT(Store::Open(store_->dir()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("of version '2'")));
  EXPECT_EQ(*ReadFile(store_->dir() + "/VERSION"), "2\n");
}

TEST_F(StoreTest, DamagedRecordsCountAsAbsentAndForeignFilesStay) {
  ASSERT_OK(Pull(*store_, "a", {"base"}));
  ASSERT_OK(Pull(*store_, "b", {"top"}));
  ASSERT_OK(WriteFileAtomic(store_->dir() + "/images/" + Id("a").hex() + ".json", "{\"lay"));
  ASSERT_OK(WriteFileAtomic(store_->dir() + "/layers/NOTES", "mine"));
  ASSERT_OK(WriteFileAtomic(store_->dir() + "/notes", "mine"));
  ASSERT_OK(store_->Sweep());
  EXPECT_THAT(store_->Images(), SizeIs(1));
  EXPECT_FALSE(store_->FindRef("a").has_value());
  EXPECT_FALSE(store_->HasLayer(LayerKey(Id("base"))));
  EXPECT_OK(ReadFile(store_->dir() + "/layers/NOTES"));
  EXPECT_OK(ReadFile(store_->dir() + "/notes"));
  ASSERT_OK(Pull(*store_, "a", {"base"}));
  EXPECT_TRUE(store_->FindImage(Id("a")).has_value());
}

TEST_F(StoreTest, AnImageWhoseLayerIsGoneIsNone) {
  ASSERT_OK(Pull(*store_, "a", {"base", "top"}));
  ASSERT_OK(RemoveTree(store_->LayerPath(LayerKey(Id("base")))));
  EXPECT_FALSE(store_->FindImage(Id("a")).has_value());
  ASSERT_OK(store_->Sweep());
  EXPECT_THAT(store_->Images(), IsEmpty());
  EXPECT_THAT(store_->Refs(), IsEmpty());
  ExpectConsistent(*store_);
}

TEST_F(StoreTest, KilledAtAnyMomentItIsConsistentAndTheNextPullWorks) {
  std::mt19937 random(11);
  for (int round = 0; round < 50; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (int i = 0;; ++i) {
        (void)Pull(*store_, absl::StrCat("i", i % 5), {"base", absl::StrCat(i % 7)});
        (void)store_->Remove(Id(absl::StrCat("i", (i + 2) % 5)));
      }
    }
    ASSERT_GT(child, 0);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 40000));
    ::kill(child, SIGKILL);
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    const std::unique_ptr<Store> next = *Store::Open(store_->dir());
    ASSERT_OK(next->Sweep());
    ExpectConsistent(*next);
    ASSERT_OK(Pull(*next, "after", {"base", "after"}));
    ExpectConsistent(*next);
  }
}

TEST_F(StoreTest, PullsRemovalsAndSweepsAtTheSameTimeNeverLeaveAHalfImage) {
  const auto work = [this](int seed) {
    const std::unique_ptr<Store> own = *Store::Open(store_->dir());
    std::mt19937 random(seed);
    for (int i = 0; i < 60; ++i) {
      const std::string name = absl::StrCat("i", random() % 3);
      const absl::Status status = Pull(*own, name, {"base", name});
      EXPECT_TRUE(status.ok() || absl::IsAborted(status)) << status;
      if (random() % 2 == 0) (void)own->Remove(Id(name));
      if (random() % 4 == 0) {
        EXPECT_OK(own->Sweep());
      }
    }
  };
  std::vector<std::thread> threads;
  for (int seed = 0; seed < 4; ++seed) threads.emplace_back(work, seed);
  for (std::thread& thread : threads) thread.join();
  ASSERT_OK(store_->Sweep());
  ExpectConsistent(*store_);
}

TEST_F(StoreTest, AFullDiskIsAnErrorAndWhatWasThereStays) {
  REQUIRES_ROOT();
  const std::string small = dir_.path() + "/small";
  ASSERT_OK(MakeDirs(small));
  ASSERT_EQ(::mount("tmpfs", small.c_str(), "tmpfs", 0, "size=512k,nr_inodes=100"), 0);
  const absl::Cleanup unmount = [&] { ::umount2(small.c_str(), MNT_DETACH); };
  const std::unique_ptr<Store> store = *Store::Open(small + "/images");
  ASSERT_OK(Pull(*store, "a", {"base"}));
  EXPECT_THAT(Pull(*store, "big", {"big"}, 400000),
              StatusIs(testing::_, HasSubstr("No space left")));
  ASSERT_OK(store->Sweep());
  ExpectConsistent(*store);
  absl::Status status;
  int images = 0;
  while (status.ok() && images < 100) {
    const std::string name = absl::StrCat("many", images++);
    status = Pull(*store, name, {name}, 5);
  }
  EXPECT_THAT(status, StatusIs(testing::_, HasSubstr("No space left")));  // inodes
  EXPECT_TRUE(store->FindImage(Id("a")).has_value());
  for (int i = 0; i < 5; ++i) ASSERT_OK(store->Remove(Id(absl::StrCat("many", i))));
  EXPECT_OK(Pull(*store, "again", {"again"}, 5));
}

TEST_F(StoreTest, OnExt4PullsLieApart) {
  const Fd tmp = *OpenFile(store_->dir() + "/tmp", O_RDONLY | O_DIRECTORY);
  struct statfs info = {};
  ASSERT_EQ(::fstatfs(tmp.get(), &info), 0);
  if (info.f_type != EXT4_SUPER_MAGIC) GTEST_SKIP() << "the store is not on ext4";
  int flags = 0;
  ASSERT_EQ(::ioctl(tmp.get(), FS_IOC_GETFLAGS, &flags), 0);
  EXPECT_NE(flags & FS_TOPDIR_FL, 0);
}

TEST(ChainId, IsTheImageSpecs) {
  const Digest a = Id("a"), b = Id("b");
  EXPECT_EQ(ChainId({a}), a);
  EXPECT_EQ(ChainId({a, b}), Digest::Of(a.ToString() + " " + b.ToString()));
  EXPECT_NE(ChainId({a, b}), ChainId({b, a}));
  EXPECT_NE(ChainKey(a), LayerKey(a));
}

}  // namespace
}  // namespace jenkins_agent
