"""Why a report says what it says."""
