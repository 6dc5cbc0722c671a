// Lists the devices of the Vulkan loader: ggml does not say why it uses none of them.

#include "guard.h"

#ifdef SHARPV_VULKAN
#include <vulkan/vulkan.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

static void check(VkResult result, const char * call) {
    if (result != VK_SUCCESS && result != VK_INCOMPLETE) {
        throw std::runtime_error(std::string(call) + " gave VkResult " + std::to_string(result));
    }
}

static void describe(VkPhysicalDevice device, sharpv_vulkan_device & to) {
    VkPhysicalDeviceProperties properties {};
    vkGetPhysicalDeviceProperties(device, &properties);
    std::snprintf(to.name, sizeof(to.name), "%s", properties.deviceName);
    to.api_major = VK_API_VERSION_MAJOR(properties.apiVersion);
    to.api_minor = VK_API_VERSION_MINOR(properties.apiVersion);
    to.api_patch = VK_API_VERSION_PATCH(properties.apiVersion);
    to.software = properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
    if (properties.apiVersion < VK_API_VERSION_1_2) {
        return; // It does not support the queries below.
    }
    VkPhysicalDeviceDriverProperties driver {};
    driver.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES;
    VkPhysicalDeviceProperties2 more {};
    more.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
    more.pNext = &driver;
    vkGetPhysicalDeviceProperties2(device, &more);
    std::snprintf(to.driver, sizeof(to.driver), "%s %s", driver.driverName, driver.driverInfo);

    VkPhysicalDeviceVulkan11Features features {};
    features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
    VkPhysicalDeviceFeatures2 all {};
    all.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
    all.pNext = &features;
    vkGetPhysicalDeviceFeatures2(device, &all);
    to.storage_16bit = features.storageBuffer16BitAccess == VK_TRUE;
}
#endif

int32_t sharpv_try_vulkan_devices(
        struct sharpv_vulkan_device * devices, size_t n_max,
        size_t * result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
        *result = 0;
#ifdef SHARPV_VULKAN
        VkApplicationInfo application {};
        application.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO;
        application.apiVersion = VK_API_VERSION_1_2;
        VkInstanceCreateInfo info {};
        info.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
        info.pApplicationInfo = &application;
        VkInstance created = nullptr;
        const VkResult status = vkCreateInstance(&info, nullptr, &created);
        if (status == VK_ERROR_INCOMPATIBLE_DRIVER) {
            return; // No driver is installed.
        }
        check(status, "vkCreateInstance");
        const auto destroy = [](VkInstance instance) { vkDestroyInstance(instance, nullptr); };
        const std::unique_ptr<VkInstance_T, decltype(destroy)> instance(created, destroy);

        uint32_t n = 0;
        check(vkEnumeratePhysicalDevices(instance.get(), &n, nullptr), "vkEnumeratePhysicalDevices");
        std::vector<VkPhysicalDevice> found(n);
        check(vkEnumeratePhysicalDevices(instance.get(), &n, found.data()), "vkEnumeratePhysicalDevices");
        *result = std::min<size_t>(n, n_max);
        for (size_t i = 0; i < *result; i++) {
            devices[i] = {};
            describe(found[i], devices[i]);
        }
#else
        (void) devices;
        (void) n_max;
#endif
    });
}
