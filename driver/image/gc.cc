#include "driver/image/gc.h"

#include <algorithm>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"

namespace jenkins_agent {
namespace {

// How many bytes must go for space.
int64_t WantedBytes(const GcPolicy& policy, int64_t store_bytes, const DiskSpace& disk) {
  int64_t wanted = 0;
  const int64_t used = disk.total - disk.free;
  if (used > disk.total / 100 * policy.high_percent) {
    wanted = used - disk.total / 100 * policy.low_percent;
  }
  wanted = std::max(wanted, policy.min_free - disk.free);
  if (policy.max_bytes > 0) wanted = std::max(wanted, store_bytes - policy.max_bytes);
  return wanted;
}

// Counts in how many images each layer is.
class LayerUse {
 public:
  explicit LayerUse(const std::vector<StoredImage>& images) {
    for (const StoredImage& image : images) {
      for (const auto& [key, bytes] : Layers(image)) ++uses_[key];
    }
  }
  // Takes an image out; what that frees.
  int64_t Remove(const StoredImage& image) {
    int64_t freed = 0;
    for (const auto& [key, bytes] : Layers(image)) {
      if (--uses_[key] == 0) freed += bytes;
    }
    return freed;
  }

 private:
  // One image may have the same layer twice.
  static std::map<std::string, int64_t> Layers(const StoredImage& image) {
    std::map<std::string, int64_t> layers;
    for (const StoredLayer& layer : image.layers) layers[layer.key] = layer.bytes;
    return layers;
  }

  std::map<std::string, int> uses_;
};

}  // namespace

absl::Status CheckGcPolicy(const GcPolicy& policy) {
  const auto is_percent = [](int value) { return value >= 1 && value <= 100; };
  if (!is_percent(policy.high_percent) || !is_percent(policy.low_percent)) {
    return absl::InvalidArgumentError("the watermarks must lie between 1 and 100 percent");
  }
  if (policy.low_percent > policy.high_percent) {
    return absl::InvalidArgumentError(absl::StrCat("the low watermark (", policy.low_percent,
                                                   ") lies above the high one (",
                                                   policy.high_percent, ")"));
  }
  if (policy.delay.count() < 0 || policy.max_age.count() < 0 || policy.min_free < 0 ||
      policy.max_bytes < 0) {
    return absl::InvalidArgumentError("times and sizes must not be below zero");
  }
  return absl::OkStatus();
}

GcChoice ChooseImages(const GcPolicy& policy, std::vector<StoredImage> images,
                      const std::set<Digest>& kept, const DiskSpace& disk, int64_t now_s) {
  GcChoice choice;
  const int64_t wanted = WantedBytes(policy, StoreBytes(images), disk);
  LayerUse use(images);
  std::sort(images.begin(), images.end(), [](const StoredImage& a, const StoredImage& b) {
    return std::tie(a.last_used, a.manifest) < std::tie(b.last_used, b.manifest);
  });
  for (size_t i = 0; i < images.size(); ++i) {
    const StoredImage& image = images[i];
    // A clock that was set back makes no image old.
    const int64_t age = std::max<int64_t>(now_s - image.last_used, 0);
    if (kept.count(image.manifest) > 0 || age < policy.delay.count()) continue;
    const bool old = policy.max_age.count() > 0 && age > policy.max_age.count();
    const bool recent = i + policy.keep_recent >= images.size();
    if (!old && (recent || choice.freed >= wanted)) continue;
    choice.images.push_back(image.manifest);
    choice.freed += use.Remove(image);
  }
  choice.missing = std::max<int64_t>(wanted - choice.freed, 0);
  return choice;
}

int64_t StoreBytes(const std::vector<StoredImage>& images) {
  std::map<std::string, int64_t> layers;
  for (const StoredImage& image : images) {
    for (const StoredLayer& layer : image.layers) layers[layer.key] = layer.bytes;
  }
  int64_t bytes = 0;
  for (const auto& [key, size] : layers) bytes += size;
  return bytes;
}

}  // namespace jenkins_agent
