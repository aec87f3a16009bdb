#include "driver/image/verify.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "driver/image/tree_tar.h"

namespace jenkins_agent {

LayerVerdict VerifyLayer(const Store& store, const StoredLayer& layer) {
  absl::StatusOr<Fd> dir = store.OpenLayer(layer.key);
  if (absl::IsNotFound(dir.status())) return {.state = LayerState::kGone, .why = ""};
  if (!dir.ok()) {
    return {.state = LayerState::kDamaged, .why = std::string(dir.status().message())};
  }
  if (layer.tree.empty()) return {.state = LayerState::kUnknown, .why = ""};
  const absl::StatusOr<Digest> found = DigestOfTree(*std::move(dir), {});
  // Whoever removes a layer renames it first.
  if (!store.HasLayer(layer.key)) return {.state = LayerState::kGone, .why = ""};
  if (!found.ok()) {
    return {.state = LayerState::kDamaged, .why = std::string(found.status().message())};
  }
  if (*found == layer.tree) return {.state = LayerState::kIntact, .why = ""};
  return {.state = LayerState::kDamaged,
          .why = absl::StrCat("its files have the digest ", found->Short(), ", not ",
                              layer.tree.Short())};
}

}  // namespace jenkins_agent
