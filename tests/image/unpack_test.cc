// What a manifest and a config say of a layer must be so. What layers hold: test_layers.py.
#include "driver/image/unpack.h"

#include <fcntl.h>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/image/layer_dir.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class UnpackLayerTest : public testing::Test {
 protected:
  void SetUp() override {
    REQUIRES_ROOT();
    // The smallest archive: its end, and what a writer left behind it.
    content_ = std::string(1024, '\0') + "behind the end";
    ASSERT_OK(WriteFileAtomic(dir_.path() + "/blob", content_));
    ASSERT_OK(MakeDirs(dir_.path() + "/root"));
    layer_ = {.media_type = "", .digest = Digest::Of(content_), .size = ssize_t(content_.size())};
  }

  absl::StatusOr<UnpackedLayer> Unpack(const Digest& diff_id) {
    const Fd blob = *OpenFile(dir_.path() + "/blob", O_RDONLY);
    const Fd root = *OpenFile(dir_.path() + "/root", O_RDONLY | O_DIRECTORY);
    FileSource source(blob.get());
    return UnpackLayer(source, layer_, diff_id, root.get());
  }

  TempDir dir_;
  std::string content_;
  Descriptor layer_;
};

TEST_F(UnpackLayerTest, IsHashedToTheLastByteBehindTheArchive) {
  ASSERT_OK_AND_ASSIGN(const UnpackedLayer layer, Unpack(Digest::Of(content_)));
  EXPECT_EQ(layer.bytes, layer_.size);
  EXPECT_EQ(layer.entries, 0);
  EXPECT_THAT(layer.invented_dirs, IsEmpty());
}

TEST_F(UnpackLayerTest, WrongDigestsAreDataLoss) {
  EXPECT_THAT(Unpack(Digest::Of("x")),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("unpacks to has the digest")));
  layer_.digest = Digest::Of("x");
  EXPECT_THAT(Unpack(Digest::Of(content_)),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("it has the digest")));
}

TEST_F(UnpackLayerTest, TheDescriptorsSizeIsExact) {
  ++layer_.size;
  EXPECT_THAT(Unpack(Digest::Of(content_)),
              StatusIs(absl::StatusCode::kDataLoss, "has 1038 bytes, not 1039"));
  layer_.size -= 2;
  EXPECT_THAT(Unpack(Digest::Of(content_)),
              StatusIs(absl::StatusCode::kOutOfRange, "is longer than 1037 bytes"));
}

TEST(CleanPath, StaysBelowTheRoot) {
  EXPECT_THAT(CleanPath("a/b"), ElementsAre("a", "b"));
  EXPECT_THAT(CleanPath("./a//b/."), ElementsAre("a", "b"));
  EXPECT_THAT(CleanPath("../../a"), ElementsAre("a"));
  EXPECT_THAT(CleanPath("a/../../b"), ElementsAre("b"));
  EXPECT_THAT(CleanPath("/"), IsEmpty());
  EXPECT_THAT(CleanPath(""), IsEmpty());
  EXPECT_THAT(CleanPath("a/.."), IsEmpty());
}

}  // namespace
}  // namespace jenkins_agent
